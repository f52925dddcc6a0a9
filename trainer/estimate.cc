#include "trainer/estimate.h"

namespace plural::trainer {

std::int64_t AdapterParameterCount(const ModelConfig& config, const AdapterSettings& settings) {
  std::int64_t count = 0;
  for (const std::string& target : settings.targets) {
    const std::int64_t layers = target == "lm_head" ? 1 : config.num_hidden_layers;
    const LinearShape shape = config.LinearNamed(target);
    count += layers * settings.rank * (shape.in_features + shape.out_features);
  }
  return count;
}

RunEstimate EstimateRun(const Recipe& recipe, const ModelConfig& config) {
  const std::int64_t element = recipe.model.dtype == "fp64" ? 8 : 4;
  const bool lora = recipe.adapter.lora;
  RunEstimate run;
  run.base_parameters = config.ParameterCount();
  run.trained_parameters =
      lora ? AdapterParameterCount(config, recipe.adapter.settings) : run.base_parameters;
  if (recipe.method == data::Method::kCvf) {
    run.trained_parameters += LatentParameterCount(recipe.cvf.latents, config.hidden_size);
  }
  run.trained_bytes = run.trained_parameters * element;
  run.checkpoint_bytes = 3 * run.trained_bytes;
  run.weight_bytes = lora ? run.base_parameters * element : 0;
  run.training_bytes = 4 * run.trained_bytes;
  return run;
}

}  // namespace plural::trainer
