// What ends a training run, or changes it, because of its figures: a step that stands out, a collapse.
#include <string>
#include <vector>

#include "dist/agreement.h"
#include "trainer/base/error.h"
#include "trainer/base/readable.h"
#include "trainer/run/collapse.h"
#include "trainer/run/train_lines.h"
#include "trainer/run/training_run.h"

namespace plural::trainer {

// COLLECTIVE.
void TrainingRun::StopBeforeSpike(const StepFigures& figures) {
  const std::int64_t before = state_.position.step;
  checkpoints_.SaveNow(metrics_);
  const std::vector<std::int64_t> groups = GroupsOf(before + 1);
  // Behind what the checkpoint has seen: the next start takes the step anew.
  if (Lead()) metrics_->Write(SpikeLine(before + 1, figures, groups));
  const bool skips = recipe_.guard.spike == SpikeAction::kSkip;
  FailTogether(
      world_, collectives_,
      ExitError(
          ExitCode::kDiverged,
          SpikeText(before + 1, figures, groups) +
              (skips ? "; the " + std::to_string(kMostSkippedInRow) + " steps before it were left out" : "") +
              "; it was not made, and the state after step " + std::to_string(before) +
              " is saved. Look at these groups; to go on, set guard.spike to " +
              (skips ? "warn, which makes such steps" : "skip, which leaves such steps out, or to warn") +
              ", or begin anew with another recipe, such as a lower optimizer.lr"));
}

// COLLECTIVE.
void TrainingRun::Validate() {
  if (!validation_) return;
  Enter(dist::Phase::kValidation, state_.position.step);
  progress_.Show(state_.position.step, "validating");
  const MetricsLine figures = validation_->Measure(model_, world_, collectives_);
  validated_step_ = state_.position.step;
  const auto collapse =
      JudgeValidation(figures, state_.position.step, recipe_, state_.validation);  // alike on all ranks
  const bool stops = collapse && collapse->action == CollapseAction::kStop;
  if (stops) {
    // Its lines stand behind what the checkpoint has seen: the next start measures and judges anew.
    state_.position.validation_owed = true;
    checkpoints_.SaveNow(metrics_);
  }
  if (Lead()) {
    MetricsLine line;
    line["event"] = "validation";
    line["step"] = state_.position.step;
    line.update(figures);
    metrics_->Write(line);
    progress_.Say(ValidationText(state_.position.step, figures));
    if (collapse) metrics_->Write(CollapseLine(state_.position.step, *collapse));
    if (collapse && !stops) {
      log_.Warn(CollapseText(state_.position.step, *collapse) + CollapseOutcome(*collapse));
    }
  }
  if (stops) StopCollapsed(*collapse);
}

// COLLECTIVE.
void TrainingRun::StopCollapsed(const CollapseVerdict& verdict) {
  const bool lowers = recipe_.guard.collapse == CollapseAction::kLower;
  FailTogether(
      world_, collectives_,
      ExitError(ExitCode::kDiverged,
                CollapseText(state_.position.step, verdict) +
                    (lowers ? ", although the unlikelihood weight was halved after each of the " +
                                  std::to_string(kMostLoweredInRow) + " validations before"
                            : "") +
                    "; the state after this step is saved. Begin anew with another recipe, such as a "
                    "lower optimizer.lr or loss.unlikelihood.alpha; to go on, set guard.collapse to "
                    "warn, or raise guard.collapse_factor"));
}

}  // namespace plural::trainer
