// The optimizer: AdamW on the flat buffer, learning-rate schedules, gradient norm.
//
// Owns: the two moments, the number of updates made, which spans decay. Does not own: parameters and
// gradients (dist/flat_parameters.h), which step it is (train_state.h). Thread rule: one thread.
//
// Every function of one rank gives the same bits on every machine and rank: the CPU loops are elementwise or
// use a fixed number of partial sums, and are compiled without fused multiply-add.
#pragma once

#include <ATen/core/TensorBody.h>

#include <cstdint>
#include <string>
#include <vector>

#include "dist/collectives.h"
#include "dist/flat_parameters.h"
#include "dist/shards.h"

namespace plural::trainer {

// Loshchilov & Hutter, "Decoupled Weight Decay Regularization", in the order of operations of
// torch.optim.AdamW (foreach=False).
class AdamW {
 public:
  struct Settings {
    double beta1 = 0.9, beta2 = 0.999;
    double eps = 1e-8;
    double weight_decay = 0.0;  // not applied to one-dimensional parameters (norms)
  };

  // Moments start at zero, in the parameters' dtype and on their device. `lr_scales`: factors of
  // the learning rate, one per span; empty: 1 for all. `shards`: only the elements that this rank keeps have
  // moments and are updated; null: all.
  AdamW(const dist::FlatParameters& parameters, const Settings& settings,
        const std::vector<double>& lr_scales = {}, const dist::Shards* shards = nullptr);

  // One update with learning rate `lr`; gradients are multiplied by `gradient_scale` first
  // (ClipScale). `parameters` must have the layout given at construction. An element's bits do not depend on
  // which others are updated with it.
  void Step(dist::FlatParameters& parameters, double lr, double gradient_scale = 1.0);

  std::int64_t Updates() const { return updates_; }  // t of the bias corrections
  // [n] like FlatParameters::Values(); with shards [Shards::OwnElements()].
  at::Tensor FirstMoment() const { return first_moment_; }
  at::Tensor SecondMoment() const { return second_moment_; }
  // Continues a run of `updates` updates whose moments were copied into the two tensors above.
  void Restore(std::int64_t updates) { updates_ = updates; }

 private:
  struct Range {  // neighbouring spans that are treated in the same way, or what this rank keeps of them
    std::int64_t offset = 0, size = 0;
    std::int64_t kept = 0;  // where its moments begin
    bool decays = false;
    double lr_scale = 1.0;
  };

  static std::vector<Range> KeptOf(const std::vector<Range>& ranges, const dist::Shards& shards);

  Settings settings_;
  std::vector<Range> ranges_;
  std::int64_t updates_ = 0;
  at::Tensor first_moment_, second_moment_;
};

// L2 norm of the flat gradient: squares are summed in fp64, span by span.
double GradientNorm(const dist::FlatParameters& parameters);
// The same where each rank has the sum of what it keeps only: equal on all ranks, in an order of its own.
// COLLECTIVE.
double GradientNorm(const dist::FlatParameters& parameters, const dist::Shards& shards,
                    dist::Collectives& collectives);

// The factor of gradients that keeps their norm within `max_norm`, as
// torch.nn.utils.clip_grad_norm_ does: min(1, max_norm / (norm + 1e-6)). max_norm 0: no clipping,
// 1.
double ClipScale(double norm, double max_norm);

// Learning rate of optimizer step `step` (counted from 0) of `total_steps`, as the schedules of the same
// name in transformers: the first `warmup_steps` rise from 0 by lr / warmup_steps, then `constant`, `linear`
// to 0 at total_steps, `cosine` (half a period) to 0, `cosine_with_min_lr` to lr * min_lr_rate, or
// `inverse_sqrt`: lr * sqrt(w / step), w = warmup_steps, or 10,000 without a warm-up, then counted from
// there.
struct Schedule {
  std::string kind = "constant";
  double lr = 5e-5;
  std::int64_t warmup_steps = 0;
  std::int64_t total_steps = 0;
  double min_lr_rate = 0.0;  // of cosine_with_min_lr

  double LearningRate(std::int64_t step) const;
};

}  // namespace plural::trainer
