#include "trainer/plan/step_plan.h"

namespace plural::trainer {

data::BatchPlan::Settings PlanSettings(const Recipe& recipe) {
  return {
      .seed = recipe.seed, .shuffle = recipe.data.shuffle, .groups_per_step = recipe.train.groups_per_step};
}

std::int64_t TotalSteps(const Recipe& recipe, std::int64_t groups) {
  return recipe.train.steps.value_or(recipe.train.epochs *
                                     data::BatchPlan(groups, PlanSettings(recipe)).StepsPerEpoch());
}

}  // namespace plural::trainer
