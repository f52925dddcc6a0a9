// The collapse guard: what a validation says about the run, and what becomes of it.
//
// Owns: which figures are watched, what guard.collapse does about one that has collapsed, its line and its
// words. Does not own: the figures (validation.h), the criterion (state/validation_record.h), saving and
// ending (training_run.h). Thread rule: pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "trainer/recipe/recipe.h"
#include "trainer/run/metrics.h"
#include "trainer/state/validation_record.h"

namespace plural::trainer {

// After so many validations in a row that lowered the unlikelihood weight the next collapse ends the run: a
// weight of 1/256 is not what keeps the model down.
inline constexpr std::int64_t kMostLoweredInRow = 8;

struct CollapseVerdict {
  Collapse what;
  CollapseAction action = CollapseAction::kOff;  // that is taken
  double unlikelihood_alpha = 0.0;               // from the next step on
};

// Judges the figures of the validation after `step` and takes them into `record`, which stays as it is where
// the run has to stop: its next start measures and judges again.
std::optional<CollapseVerdict> JudgeValidation(const MetricsLine& figures, std::int64_t step,
                                               const Recipe& recipe, ValidationRecord& record);

MetricsLine CollapseLine(std::int64_t step, const CollapseVerdict& verdict);
// "validation after step 300: different_responses 1.2 is 0.25 of 4.8, the best, after step 100".
std::string CollapseText(std::int64_t step, const CollapseVerdict& verdict);
// What is done about it, for people: behind CollapseText.
std::string CollapseOutcome(const CollapseVerdict& verdict);

}  // namespace plural::trainer
