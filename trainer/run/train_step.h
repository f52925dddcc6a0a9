// The train step: from one step's groups to updated parameters.
//
// Owns: forward and backward of the passes, the sum over ranks, the finite check, clipping, the update. Does
// not own: which groups (data/loader.h), what is logged and saved (train.h). Thread rule: one thread.
#pragma once

#include <cstdint>
#include <optional>

#include "data/loader.h"
#include "dist/collectives.h"
#include "dist/gradient_sync.h"
#include "dist/world.h"
#include "trainer/model/decoder.h"
#include "trainer/plan/activation_budget.h"
#include "trainer/recipe/recipe.h"
#include "trainer/state/optimizer.h"
#include "trainer/state/train_state.h"

namespace plural::trainer {

// One step's figures over all ranks, measured before its update.
struct StepFigures {
  double loss = 0.0;  // mean over the step's groups = likelihood + unlikelihood + bow
  double likelihood = 0.0;
  double unlikelihood = 0.0;  // alpha included
  double bow = 0.0;           // cvf's bag-of-words term, its weight included
  double grad_norm = 0.0;     // before clipping
  double lr = 0.0;
  std::int64_t rows = 0;               // fed to the model
  std::int64_t sequence_tokens = 0;    // that one row a sequence would have fed
  std::int64_t recomputed_passes = 0;  // whose layers were computed twice
  PassSums groups;                     // this step's part of the pass
  bool stop_requested = false;         // on any rank
};

class TrainStep {
 public:
  // All references outlive this. `state` holds the trainable parameters of `model`. COLLECTIVE.
  TrainStep(const Recipe& recipe, const Schedule& schedule, const Decoder& model, TrainState& state,
            const dist::World& world, dist::Collectives& collectives);

  // Trains on this rank's part of a step and moves `state.position` one step on. COLLECTIVE.
  // Errors: ExitError(kDiverged), before any update, when a loss or the gradient norm is not finite; it
  // names the first rank that saw it, the step and the groups.
  StepFigures Take(const data::StepBatch& batch, bool stop_requested);

 private:
  struct Local;  // one rank's sums
  Local ForwardBackward(const data::StepBatch& batch);
  void ForwardBackwardLatent(const data::StepBatch& batch, std::optional<std::uint64_t> dropout_key,
                             Local& local);
  StepFigures Reduce(const Local& local, const data::StepBatch& batch, bool stop_requested);
  void Advance(const StepFigures& figures);

  const Recipe& recipe_;
  Schedule schedule_;
  const Decoder& model_;
  TrainState& state_;
  const dist::World& world_;
  dist::Collectives& collectives_;
  dist::GradientSync sync_;
  const ActivationBudget budget_;
};

}  // namespace plural::trainer
