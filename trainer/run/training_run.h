// The loop of a training run: from the first step that is left to the result.
//
// Owns: steps and what follows them (lines of metrics, validation, progress, the profile), when a checkpoint
// is due, the result and its card. Does not own: what is checked and loaded before (train.h), the step itself
// (train_step.h), figures (validation.h), how a checkpoint is saved (run_checkpoints.h). Thread rule: main
// thread; COLLECTIVE throughout.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "data/corpus.h"
#include "dist/collectives.h"
#include "dist/watchdog.h"
#include "dist/world.h"
#include "trainer/base/error.h"
#include "trainer/base/signals.h"
#include "trainer/files/model_card.h"
#include "trainer/model/decoder.h"
#include "trainer/recipe/recipe.h"
#include "trainer/run/collapse.h"
#include "trainer/run/fault.h"
#include "trainer/run/loader.h"
#include "trainer/run/metrics.h"
#include "trainer/run/profile.h"
#include "trainer/run/progress.h"
#include "trainer/run/run_checkpoints.h"
#include "trainer/run/run_folder.h"
#include "trainer/run/run_log.h"
#include "trainer/run/train_step.h"
#include "trainer/run/validation.h"
#include "trainer/state/train_state.h"

namespace plural::trainer {

// Everything is checked and loaded. The references outlive it.
class TrainingRun {
 public:
  TrainingRun(const Recipe& recipe, const ModelConfig& config, data::Corpus corpus,
              std::optional<Validation> validation, Decoder& model, TrainState& state,
              const dist::World& world, dist::Collectives& collectives, const StopSignal& stop, RunLog& log,
              dist::Watchdog& watchdog);

  // kDone or kStopped; what goes wrong is thrown. COLLECTIVE.
  ExitCode ToTheEnd();

 private:
  void Enter(dist::Phase phase, std::int64_t step) { world_.GetPulse().Enter(phase, step); }
  bool Lead() const { return world_.Rank() == 0; }
  void OpenMetrics();
  void LogStart();
  // One step with its wait for data; the groups it trained on stay in `batch`.
  StepFigures TakeStep(TrainStep& step, StepBatch& batch, double& data_wait_seconds);
  void LogStep(const StepFigures& figures, std::int64_t epoch, double seconds, double data_wait_seconds);
  // All groups of a step, over all ranks.
  std::vector<std::int64_t> GroupsOf(std::int64_t step) const;
  [[noreturn]] void StopBeforeSpike(const StepFigures& figures);
  void EndEpoch();
  void ShowProfile();
  void Validate();
  void MeasureLatents();
  // After a validation that says the model collapses; the state is saved.
  [[noreturn]] void StopCollapsed(const CollapseVerdict& verdict);
  // Whether the figure of checkpoint.keep_best has just been the best.
  bool ValidatedBest() const;
  void WriteResult();
  bool Over() const { return state_.position.step >= last_step_ || state_.position.stopped_early; }

  const Recipe& recipe_;
  const RunPaths paths_;
  const std::string model_folder_;  // what model.path means, as it was at the start
  Decoder& model_;
  TrainState& state_;
  const dist::World& world_;
  dist::Collectives& collectives_;
  const StopSignal& stop_;
  RunLog& log_;
  dist::Watchdog& watchdog_;
  const Fault fault_;
  const std::int64_t groups_, steps_per_epoch_, first_step_, last_step_;
  const bool begins_elsewhere_;  // at a checkpoint of another run
  RunCheckpoints checkpoints_;
  const std::optional<Validation> validation_;
  std::int64_t validated_step_ = -1;
  const MethodSettings method_settings_;
  const data::PackSettings pack_;
  Training training_;                        // for the card of the result
  std::vector<data::Group> latent_prompts_;  // of cvf: whose answers are recognised at the end
  std::optional<Loader> loader_;
  std::optional<MetricsLog> metrics_;            // rank 0's
  std::optional<std::int64_t> lost_after_step_;  // behind it lines of metrics were gone when it began
  Progress progress_;
  Profile profile_;
  std::int64_t groups_shown_ = 0;  // since this start
  double step_seconds_ = 0.0;      // of theirs: without validations and checkpoints
};

}  // namespace plural::trainer
