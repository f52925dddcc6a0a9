#include "trainer/estimate.h"

#include "trainer/model/dtypes.h"

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
  const std::int64_t element = ElementBytes(recipe.model.dtype);
  const auto trained_element =
      static_cast<std::int64_t>(c10::elementSize(ComputedIn(DTypeNamed(recipe.model.dtype))));
  const bool lora = recipe.adapter.lora;
  RunEstimate run;
  run.base_parameters = config.ParameterCount();
  run.trained_parameters =
      lora ? AdapterParameterCount(config, recipe.adapter.settings) : run.base_parameters;
  if (recipe.method == data::Method::kCvf) {
    run.trained_parameters += LatentParameterCount(recipe.cvf.latents, config.hidden_size);
  }
  // An adapter is written as it is trained, a model in its own dtype.
  run.trained_bytes = run.trained_parameters * (lora ? trained_element : element);
  run.checkpoint_bytes = 3 * run.trained_parameters * trained_element;
  run.weight_bytes = lora ? run.base_parameters * element : 0;
  run.training_bytes = 4 * run.trained_parameters * trained_element;
  return run;
}

}  // namespace plural::trainer
