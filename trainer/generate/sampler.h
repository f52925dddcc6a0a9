// Sampling: tokens from a row of logits.
//
// Owns: the filters and their order, the draw. Does not own: which draw belongs to which response
// (generator.h). Thread rule: one thread an object.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "data/group.h"

namespace plural::trainer {

struct SamplingSettings {
  double temperature = 1.0;  // 0: the most likely token
  std::int64_t top_k = 0;    // 0: off
  double top_p = 1.0;        // 1: off
};

// The distribution that one row of logits gives, ready for any number of draws: temperature, then top-k, then
// top-p, then softmax (the filter order of Hugging Face generation). Ties at the edge of top-k are all kept,
// as Hugging Face keeps them. Rows are read one after the other, so that buffers are used again.
template <typename Real>
class TokenSampler {
 public:
  // `logits` must outlive the draws. Tokens of `excluded` are not drawn; they keep their share of
  // LogProbability.
  void Read(std::span<const Real> logits, const SamplingSettings& settings,
            std::span<const data::Token> excluded = {});

  // Inverse CDF in the order of token ids; `uniform` is in [0, 1).
  data::Token Draw(double uniform) const;
  // log softmax(logits)[token] in nats: the model's own probability, without temperature or filters.
  double LogProbability(data::Token token) const;
  // log sum exp of the logits: not finite where the model's numbers are not.
  double LogSum() const { return log_sum_; }

 private:
  void TakeAll(std::span<const Real> logits);
  void TakeTop(std::span<const Real> logits, std::int64_t count);
  void TakeTopP(std::span<const Real> logits);
  void Weigh(std::span<const Real> logits);
  void CutTopP(double total);

  SamplingSettings settings_{};
  std::span<const Real> logits_;
  double log_sum_ = 0.0;
  double top_ = 0.0;  // largest logit that may be drawn
  // Either every token has its weight (tokens_ is empty), or the kept ones in order of id.
  std::vector<data::Token> tokens_;
  std::vector<double> token_weights_;
  std::vector<Real> weights_;
  std::vector<double> block_sums_;
  std::vector<Real> masked_, scratch_;
};

}  // namespace plural::trainer
