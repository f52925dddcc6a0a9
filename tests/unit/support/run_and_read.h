// A pass with its figures at once, as tests want them.
#pragma once

#include <ATen/core/Tensor.h>

#include "trainer/method/objective.h"

namespace plural::trainer::testing {

struct ReadPass : PassFigures {
  at::Tensor loss;
};

inline ReadPass RunAndRead(const Decoder& model, const data::RowPass& pass, const ObjectiveSettings& settings,
                           const HeadSettings& head = {}) {
  const PassResult result = RunPass(model, pass, settings, head);
  return {ReadFigures(pass, result.values), result.loss};
}

}  // namespace plural::trainer::testing
