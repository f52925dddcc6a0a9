#include "trainer/plan/estimate.h"

#include <algorithm>

#include "dist/ordered_sum.h"
#include "trainer/kernels/dtypes.h"
#include "trainer/ops/nf4.h"

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

namespace {

// Bytes of weights that are not trained; for NF4 with the memory for one dequantised weight.
std::int64_t FrozenBytes(const ModelConfig& config, bool nf4, std::int64_t element) {
  if (!nf4) return config.ParameterCount() * element;
  std::int64_t linears = 0, quantized = 0, largest = 0;  // values, bytes, values
  for (const LinearShape& linear : config.LayerLinears()) {
    const std::int64_t values = linear.in_features * linear.out_features;
    linears += config.num_hidden_layers * values;
    quantized += config.num_hidden_layers * Nf4Bytes(values);
    largest = std::max(largest, values);
  }
  return (config.ParameterCount() - linears + largest) * element + quantized;
}

}  // namespace

RunEstimate EstimateRun(const Recipe& recipe, const ModelConfig& config, int ranks) {
  const std::int64_t element = ElementBytes(recipe.model.dtype);
  const auto trained_element =
      static_cast<std::int64_t>(c10::elementSize(ComputedIn(DTypeNamed(recipe.model.dtype))));
  const bool lora = recipe.adapter.lora;
  RunEstimate run;
  run.base_parameters = config.ParameterCount();
  run.trained_parameters =
      lora ? AdapterParameterCount(config, recipe.adapter.settings) : run.base_parameters;
  if (recipe.method->latents) {
    run.trained_parameters += LatentParameterCount(recipe.cvf.latents, config.hidden_size);
  }
  // An adapter is written in the dtype in which it is trained, a model in its own.
  run.trained_bytes = run.trained_parameters * (lora ? trained_element : element);
  run.checkpoint_bytes = 3 * run.trained_parameters * trained_element;
  const bool nf4 = recipe.model.quantize == "nf4" || config.stored_in_nf4;
  run.weight_bytes = lora ? FrozenBytes(config, nf4, element) : 0;
  const std::int64_t holders = recipe.ShardsOptimizer(ranks) ? ranks : 1;
  run.training_bytes =
      (2 * run.trained_parameters + (2 * run.trained_parameters + holders - 1) / holders) * trained_element;
  if (recipe.train.canonical) {
    run.host_bytes = dist::OrderedSum::MostBuffers(recipe.train.groups_per_step) * run.trained_parameters *
                     trained_element;
  }
  if (recipe.CopiesCheckpoints()) run.host_bytes += run.checkpoint_bytes;
  run.training_bytes += run.host_bytes;
  return run;
}

}  // namespace plural::trainer
