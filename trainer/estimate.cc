#include "trainer/estimate.h"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "trainer/model/head.h"

namespace plural::trainer {
namespace {

// Inputs plus outputs of the linear layer `target`.
std::int64_t InputsPlusOutputs(const ModelConfig& config, const std::string& target) {
  const std::int64_t hidden = config.hidden_size;
  const std::int64_t query = config.num_attention_heads * config.head_dim;
  const std::int64_t key_value = config.num_key_value_heads * config.head_dim;
  if (target == "q_proj" || target == "o_proj") return hidden + query;
  if (target == "k_proj" || target == "v_proj") return hidden + key_value;
  if (target == "gate_proj" || target == "up_proj" || target == "down_proj") {
    return hidden + config.intermediate_size;
  }
  if (target == "lm_head") return hidden + config.vocab_size;
  throw std::logic_error("no linear layer is called " + target);
}

}  // namespace

std::int64_t AdapterParameterCount(const ModelConfig& config, const AdapterSettings& settings) {
  std::int64_t count = 0;
  for (const std::string& target : settings.targets) {
    const std::int64_t layers = target == "lm_head" ? 1 : config.num_hidden_layers;
    count += layers * settings.rank * InputsPlusOutputs(config, target);
  }
  return count;
}

RunEstimate EstimateRun(const Recipe& recipe, const ModelConfig& config, std::int64_t pass_rows,
                        std::int64_t pass_batch) {
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
  const std::int64_t activations =
      config.num_hidden_layers * (10 * config.hidden_size + 4 * config.intermediate_size);
  const std::int64_t logits = std::min(pass_rows * config.vocab_size * element, HeadSettings().keep_bytes);
  const std::int64_t mask = pass_batch == 1 ? pass_rows * pass_rows * element : 0;
  run.activation_bytes = pass_rows * activations * element + mask + logits;
  return run;
}

}  // namespace plural::trainer
