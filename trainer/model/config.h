// The shape of a decoder, as a Hugging Face config.json states it.
//
// Owns: reading and writing config.json, the list of supported architectures. Does not own: weights.
// Thread rule: a value.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace plural::trainer {

struct ModelConfig {
  std::string model_type;    // llama | mistral
  std::string architecture;  // LlamaForCausalLM | MistralForCausalLM
  std::int64_t vocab_size = 0;
  std::int64_t hidden_size = 0;
  std::int64_t intermediate_size = 0;
  std::int64_t num_hidden_layers = 0;
  std::int64_t num_attention_heads = 0;
  std::int64_t num_key_value_heads = 0;
  std::int64_t head_dim = 0;
  std::int64_t max_position_embeddings = 0;
  std::int64_t sliding_window = 0;  // 0: none
  double rms_norm_eps = 1e-6;
  double rope_theta = 10000.0;
  double initializer_range = 0.02;
  bool tie_word_embeddings = false;
  std::vector<std::int64_t> eos_token_ids;
  std::int64_t bos_token_id = -1;  // -1: none
  std::int64_t pad_token_id = -1;  // -1: none

  // Unknown architecture, rope scaling, biases, another activation: ExitError(kBadData) that names what
  // was found, what is supported and `where` (the file or recipe key).
  static ModelConfig FromJson(const nlohmann::json& json, const std::string& where);
  static ModelConfig FromFolder(const std::filesystem::path& folder);
  nlohmann::json ToJson() const;

  std::int64_t ParameterCount() const;
};

}  // namespace plural::trainer
