#include "trainer/plan/step_plan.h"

#include <cmath>

namespace plural::trainer {

data::BatchPlan::Settings PlanSettings(const Recipe& recipe) {
  return {
      .seed = recipe.seed, .shuffle = recipe.data.shuffle, .groups_per_step = recipe.train.groups_per_step};
}

std::int64_t TotalSteps(const Recipe& recipe, std::int64_t groups) {
  return recipe.train.steps.value_or(recipe.train.epochs *
                                     data::BatchPlan(groups, PlanSettings(recipe)).StepsPerEpoch());
}

std::int64_t WarmupSteps(const Recipe& recipe, std::int64_t groups) {
  if (recipe.optimizer.warmup_ratio == 0.0) return recipe.optimizer.warmup_steps;
  const auto steps = static_cast<double>(TotalSteps(recipe, groups));
  return static_cast<std::int64_t>(std::ceil(recipe.optimizer.warmup_ratio * steps));
}

}  // namespace plural::trainer
