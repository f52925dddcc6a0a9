// A pass with its figures at once, as tests want them.
#pragma once

#include <ATen/core/Tensor.h>

#include "trainer/method/objective.h"

namespace plural::trainer::testing {

struct ReadPass : PassFigures {
  at::Tensor loss;
  double likelihood = 0.0, unlikelihood = 0.0;  // the first two terms
};

inline ReadPass RunAndRead(const Decoder& model, const data::RowPass& pass, const ObjectiveSettings& settings,
                           const HeadSettings& head = {}) {
  const PassResult result = RunPass(model, pass, settings, head);
  ReadPass read{ReadFigures(pass, result.values), result.loss};
  read.likelihood = read.terms.at(0);
  if (read.terms.size() > 1) read.unlikelihood = read.terms[1];
  return read;
}

}  // namespace plural::trainer::testing
