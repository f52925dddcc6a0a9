// Train lines: what a step and a pass write to metrics.jsonl.
//
// Owns: keys, their order and units. Does not own: the file (metrics.h), what is measured (train_step.h).
// Thread rule: pure functions.
#pragma once

#include <cstdint>

#include "trainer/recipe/recipe.h"
#include "trainer/run/metrics.h"
#include "trainer/run/train_step.h"
#include "trainer/state/train_state.h"

namespace plural::trainer {

MetricsLine StepLine(const Recipe& recipe, const StepFigures& figures, std::int64_t step, std::int64_t epoch,
                     double seconds, double data_wait_seconds);

// Means over a pass, each group measured before its step. `position`: before the next pass begins.
MetricsLine PassLine(const Recipe& recipe, const Position& position);

}  // namespace plural::trainer
