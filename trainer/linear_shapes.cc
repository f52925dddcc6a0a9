#include "trainer/linear_shapes.h"

#include <stdexcept>

namespace plural::trainer {

LinearShape ShapeOf(const ModelConfig& config, const std::string& name) {
  const std::int64_t hidden = config.hidden_size;
  const std::int64_t query = config.num_attention_heads * config.head_dim;
  const std::int64_t key_value = config.num_key_value_heads * config.head_dim;
  if (name == "q_proj") return {hidden, query};
  if (name == "k_proj" || name == "v_proj") return {hidden, key_value};
  if (name == "o_proj") return {query, hidden};
  if (name == "gate_proj" || name == "up_proj") return {hidden, config.intermediate_size};
  if (name == "down_proj") return {config.intermediate_size, hidden};
  if (name == "lm_head") return {hidden, config.vocab_size};
  throw std::logic_error("no linear layer is called " + name);
}

}  // namespace plural::trainer
