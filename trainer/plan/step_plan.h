// The steps of a run: which groups each takes, and how many there are.
//
// Owns: both, as the recipe decides them. Does not own: the order itself (data/batch_plan.h).
// Thread rule: pure functions.
#pragma once

#include <cstdint>

#include "data/batch_plan.h"
#include "trainer/recipe/recipe.h"

namespace plural::trainer {

data::BatchPlan::Settings PlanSettings(const Recipe& recipe);
// The number of all steps of the run; `groups`: those of the corpus.
std::int64_t TotalSteps(const Recipe& recipe, std::int64_t groups);
// Steps of its warm-up, which may be more.
std::int64_t WarmupSteps(const Recipe& recipe, std::int64_t groups);

}  // namespace plural::trainer
