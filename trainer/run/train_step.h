// The train step: from one step's groups to updated parameters.
//
// Owns: forward and backward of the passes, the sum over ranks, the finite check, clipping, the update. Does
// not own: which groups (loader.h), what is logged and saved (train.h). Thread rule: one thread.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "dist/collectives.h"
#include "dist/gradient_sync.h"
#include "dist/ordered_sum.h"
#include "dist/world.h"
#include "trainer/method/method.h"
#include "trainer/model/decoder.h"
#include "trainer/plan/activation_budget.h"
#include "trainer/recipe/recipe.h"
#include "trainer/run/loader.h"
#include "trainer/state/optimizer.h"
#include "trainer/state/spike_window.h"
#include "trainer/state/train_state.h"

namespace plural::trainer {

// One step's figures over all ranks, measured before its update.
struct StepFigures {
  Sums sums;               // StepSums (method/method.h)
  double loss = 0.0;       // mean over the step's groups: the sum of the method's terms
  double grad_norm = 0.0;  // before clipping
  double lr = 0.0;
  bool stop_requested = false;  // on any rank
  std::optional<Spike> spike{};
  bool updated = true;    // false: the step stands out and was left out
  bool gives_up = false;  // the run must end before this step
  // The time of each rank's forward and backward, before it waits for others; on a GPU that of starting them.
  std::vector<double> rank_seconds{};
  // How often this rank has run out of memory and begun its passes anew, with layers that are computed twice.
  std::int64_t begun_anew = 0;
};

// After so many steps that were left out one behind the other the next one ends the run: steps that all stand
// out are no spike, and the window would never learn of them.
inline constexpr std::int64_t kMostSkippedInRow = 8;

class TrainStep {
 public:
  struct Settings {
    const Method* method = nullptr;
    MethodSettings values;                      // of the method
    std::optional<std::uint64_t> dropout_seed;  // none: nothing is dropped
    double clip_norm = 0.0;                     // 0: no clipping
    std::int64_t bucket_bytes = 25 << 20;       // gradients are sent in pieces of about so many
    bool canonical = false;                     // sums in one order, of batches whose groups lie apart
    SpikeAction on_spike = SpikeAction::kOff;
    SpikeSettings spikes{};
    std::int64_t out_of_memory_step = 0;  // of a test (fault.h): once in this step memory runs out
  };

  // All references outlive this. `state` holds the trainable parameters of `model`. COLLECTIVE.
  TrainStep(const Settings& settings, const Schedule& schedule, ActivationBudget& budget,
            const Decoder& model, TrainState& state, const dist::World& world,
            dist::Collectives& collectives);

  // Trains on this rank's part of a step and moves `state.position` one step on. A step that stands out may
  // be left out, or the run gives up: then `state` stays as it is before the step. COLLECTIVE. Errors:
  // ExitError(kDiverged), before any update, when a loss or the gradient norm is not finite; it names the
  // first rank that saw it, the step and the groups.
  StepFigures Take(const StepBatch& batch, bool stop_requested);

 private:
  // Sums over some of this rank's groups with their passes; terms are their part of the step's means.
  // `last`: what follows is the sum over ranks. Where a GPU's memory runs out they are done once more, with
  // fewer activations kept and so with the same bits, unless a part of their gradients has been sent.
  Sums ForwardBackward(const StepBatch& batch, std::span<const data::LabelledGroup> groups,
                       std::span<const data::RowPass> passes, bool last);
  Sums ForwardBackwardOnce(const StepBatch& batch, std::span<const data::LabelledGroup> groups,
                           std::span<const data::RowPass> passes, bool last);
  // The same of all groups apart: each one's sums, and its gradient in `ordered_`.
  std::vector<Sums> ForwardBackwardApart(const StepBatch& batch);
  // From sums over all ranks, so that all come to the same.
  void Judge(StepFigures& figures) const;
  StepFigures Reduce(const std::vector<Sums>& sums, const StepBatch& batch, bool stop_requested,
                     double seconds);
  // The sums over all groups of the step, in one order. COLLECTIVE.
  Sums InOrder(const std::vector<Sums>& sums, const StepBatch& batch);

  const Settings settings_;
  Schedule schedule_;
  ActivationBudget& budget_;
  const Decoder& model_;
  TrainState& state_;
  const dist::World& world_;
  dist::Collectives& collectives_;
  std::optional<dist::GradientSync> sync_;   // either this one
  std::optional<dist::OrderedSum> ordered_;  // or this one
  std::int64_t begun_anew_ = 0;              // in this step
  bool ran_out_ = false;                     // out_of_memory_step is over
};

}  // namespace plural::trainer
