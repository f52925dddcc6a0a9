// The spike window: the losses and gradient norms of the last steps, and whether the next step stands out.
//
// Owns: the numbers, the criterion. Does not own: what is done with a step that stands out
// (run/train_step.h), their form on disk (train_state.h). Thread rule: one thread.
//
// It is part of the train state: what it holds is summed over all ranks, so all ranks decide the same, and it
// lies in checkpoints, so a resume in the middle of a window decides the same.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace plural::trainer {

struct SpikeSettings {
  std::int64_t window_steps = 128;
  double factor = 10.0;
};

// A figure of a step that is more than `factor` times its median.
struct Spike {
  std::string figure;  // "grad_norm" or "loss"
  double value = 0.0, median = 0.0;
  std::int64_t steps = 0;  // that the median is of
};

struct SpikeWindow {
  std::vector<double> losses, grad_norms;  // of the last accepted steps, the newest last
  std::int64_t skipped_steps = 0;          // of the whole run
  std::int64_t skipped_in_row = 0;         // before the next step

  bool Empty() const { return losses.empty() && skipped_steps == 0; }
};

// Looks at the gradient norm, then at the loss. Nothing stands out while the window is less than half full,
// or beside a median that is not positive.
std::optional<Spike> FindSpike(const SpikeWindow& window, const SpikeSettings& settings, double loss,
                               double grad_norm);

// The step was made: it belongs to the window, unless one of the numbers is not finite.
void AcceptStep(SpikeWindow& window, const SpikeSettings& settings, double loss, double grad_norm);
// The step was left out.
void SkipStep(SpikeWindow& window);

}  // namespace plural::trainer
