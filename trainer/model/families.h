// The families of models that are supported.
//
// Owns: the particulars of each family, and the meaning of keys absent from its config.json. Does
// not own: reading the keys (config_json.cc). Thread rule: constants.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace plural::trainer {

// The layers that have the sliding window.
enum class Windows : std::uint8_t {
  kNever,
  kAlways,
  kEveryOther,   // the first, the third, ...
  kFiveOfSix,    // all but the sixth, the twelfth, ...
  kUpperLayers,  // from max_window_layers on, if use_sliding_window is true
};

// The particulars of a family, and the values of its absent keys: the defaults of transformers 5.
struct Family {
  std::string_view model_type, architecture;
  std::int64_t max_position_embeddings = 0;
  std::int64_t num_key_value_heads = 0;  // 0: as many as query heads
  std::int64_t head_dim = 0;             // 0: hidden_size / num_attention_heads
  double rms_norm_eps = 1e-6;
  double rope_theta = 10000.0;
  bool tie_word_embeddings = false;
  std::int64_t bos_token_id = -1, eos_token_id = -1, pad_token_id = -1;  // -1: none
  Windows windows = Windows::kNever;
  std::int64_t sliding_window = 0;  // 0: none
  bool two_ropes = false;           // layers with a window have a rotary embedding of their own
  bool qkv_bias = false;            // always
  bool reads_attention_bias = false, reads_mlp_bias = false;
  bool qk_norm = false;
  bool fused_projections = false;
  bool gelu = false;  // tanh gelu, with norm weights around 1 and scaled embeddings
  bool output_norms = false;
  double query_pre_attn_scalar = 0.0;  // 0: the key is not read
  bool reads_attention_cap = false, reads_final_cap = false;
  double attention_cap = 0.0, final_cap = 0.0;  // 0: none
};

// Null for an unknown type.
const Family* FindFamily(std::string_view model_type);
// "supported are llama (LlamaForCausalLM), ..."
std::string SupportedFamilies();

}  // namespace plural::trainer
