// Sampling: one token from a row of logits.
//
// Owns: the filters and their order, the draw. Does not own: which draw belongs to which response
// (generator.h). Thread rule: pure functions.
#pragma once

#include <cstdint>
#include <span>

#include "data/group.h"

namespace plural::trainer {

struct SamplingSettings {
  double temperature = 1.0;  // 0: the most likely token
  std::int64_t top_k = 0;    // 0: off
  double top_p = 1.0;        // 1: off
};

// Temperature, then top-k, then top-p, then softmax and one inverse-CDF draw in the order of token ids
// (the filter order of Hugging Face generation). `uniform` is in [0, 1). Ties at the edge of top-k are
// all kept, as Hugging Face keeps them.
template <typename Real>
data::Token SampleToken(std::span<const Real> logits, const SamplingSettings& settings, double uniform);

// log softmax(logits)[token] in nats: the model's own probability, without temperature or filters.
template <typename Real>
double LogProbability(std::span<const Real> logits, data::Token token);

}  // namespace plural::trainer
