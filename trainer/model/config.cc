#include "trainer/model/config.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "trainer/base/error.h"
#include "trainer/base/json_io.h"

namespace plural::trainer {

std::vector<std::int64_t> GenerationEndTokens(const std::filesystem::path& folder) {
  const std::filesystem::path file = folder / "generation_config.json";
  std::error_code error;
  if (!std::filesystem::is_regular_file(file, error)) return {};
  const nlohmann::json generation = ReadJsonFile(file);
  if (!generation.is_object() || !generation.contains("eos_token_id")) return {};
  const nlohmann::json& value = generation["eos_token_id"];
  std::vector<std::int64_t> ids;
  for (const nlohmann::json& id : value.is_array() ? value : nlohmann::json::array({value})) {
    if (id.is_number_integer()) ids.push_back(id.get<std::int64_t>());
  }
  return ids;
}

ModelConfig ModelConfig::FromFolder(const std::filesystem::path& folder) {
  const std::filesystem::path file = folder / "config.json";
  if (!std::filesystem::exists(file)) {
    throw ExitError(ExitCode::kMissingInput,
                    "'" + folder.string() +
                        "' has no config.json; a model is a Hugging Face folder with "
                        "config.json and *.safetensors");
  }
  ModelConfig config = FromJson(ReadJsonFile(file), "'" + file.string() + "'");
  std::vector<std::int64_t> ends = config.eos_token_ids;
  const std::vector<std::int64_t> generation = GenerationEndTokens(folder);
  ends.insert(ends.end(), generation.begin(), generation.end());
  config.AddEndTokens(ends);
  return config;
}

void ModelConfig::AddEndTokens(std::span<const std::int64_t> ids) {
  std::vector<std::int64_t> all;
  const auto add = [&](std::int64_t id) {
    const bool fits = id >= 0 && id < vocab_size;
    if (fits && std::find(all.begin(), all.end(), id) == all.end()) all.push_back(id);
  };
  for (const std::int64_t id : ids) add(id);
  for (const std::int64_t id : eos_token_ids) add(id);
  eos_token_ids = std::move(all);
}

bool ModelConfig::HasWindow(std::int64_t layer) const {
  return sliding_window > 0 && (sliding_layers.empty() || sliding_layers.at(static_cast<std::size_t>(layer)));
}

const Rope& ModelConfig::RopeOf(std::int64_t layer) const {
  return sliding_rope && HasWindow(layer) ? *sliding_rope : rope;
}

double ModelConfig::AttentionScale() const {
  return 1.0 / std::sqrt(query_pre_attn_scalar > 0.0 ? query_pre_attn_scalar : static_cast<double>(head_dim));
}

AttentionTerms ModelConfig::Attention() const {
  AttentionTerms terms{.window_of_layer = {},
                       .scale = AttentionScale(),
                       .softcap = attn_logit_softcapping,
                       .heads = num_attention_heads,
                       .shared_heads = num_key_value_heads,
                       .head_dim = head_dim};
  for (std::int64_t layer = 0; layer < num_hidden_layers; ++layer) {
    terms.window_of_layer.push_back(WindowOf(layer));
  }
  return terms;
}

std::vector<LinearShape> ModelConfig::LayerLinears() const {
  const std::int64_t queries = num_attention_heads * head_dim;
  const std::int64_t keys = num_key_value_heads * head_dim;
  const LinearShape output = {"self_attn.o_proj", hidden_size, queries, o_bias};
  const LinearShape down = {"mlp.down_proj", hidden_size, intermediate_size, mlp_bias};
  if (fused_projections) {
    return {{"self_attn.qkv_proj", queries + 2 * keys, hidden_size, qkv_bias},
            output,
            {"mlp.gate_up_proj", 2 * intermediate_size, hidden_size, mlp_bias},
            down};
  }
  return {{"self_attn.q_proj", queries, hidden_size, qkv_bias},
          {"self_attn.k_proj", keys, hidden_size, qkv_bias},
          {"self_attn.v_proj", keys, hidden_size, qkv_bias},
          output,
          {"mlp.gate_proj", intermediate_size, hidden_size, mlp_bias},
          {"mlp.up_proj", intermediate_size, hidden_size, mlp_bias},
          down};
}

LinearShape ModelConfig::LinearNamed(const std::string& name) const {
  if (name == "lm_head") return {name, vocab_size, hidden_size};
  for (const LinearShape& linear : LayerLinears()) {
    if (linear.Name() == name) return linear;
  }
  throw ExitError(
      ExitCode::kBadRecipe,
      "adapter.targets: '" + name + "' is not a linear layer of this model; allowed: " + LinearNames());
}

std::string ModelConfig::LinearNames() const {
  std::string names;
  for (const LinearShape& linear : LayerLinears()) names += linear.Name() + ", ";
  return names + "lm_head";
}

std::int64_t ModelConfig::ParameterCount() const {
  std::int64_t layer = (output_norms ? 4 : 2) * hidden_size + (qk_norm ? 2 * head_dim : 0);
  for (const LinearShape& linear : LayerLinears()) {
    layer += linear.out_features * (linear.in_features + (linear.bias ? 1 : 0));
  }
  const std::int64_t tables = vocab_size * hidden_size * (tie_word_embeddings ? 1 : 2);
  return num_hidden_layers * layer + tables + hidden_size;
}

}  // namespace plural::trainer
