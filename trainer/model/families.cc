#include "trainer/model/families.h"

#include <array>

namespace plural::trainer {
namespace {

constexpr std::array<Family, 8> kFamilies = {{
    {.model_type = "llama",
     .architecture = "LlamaForCausalLM",
     .max_position_embeddings = 2048,
     .bos_token_id = 1,
     .eos_token_id = 2,
     .reads_attention_bias = true,
     .reads_mlp_bias = true},
    {.model_type = "mistral",
     .architecture = "MistralForCausalLM",
     .max_position_embeddings = 131072,
     .num_key_value_heads = 8,
     .bos_token_id = 1,
     .eos_token_id = 2,
     .windows = Windows::kAlways,
     .sliding_window = 4096},
    {.model_type = "qwen2",
     .architecture = "Qwen2ForCausalLM",
     .max_position_embeddings = 32768,
     .num_key_value_heads = 32,
     .windows = Windows::kUpperLayers,
     .sliding_window = 4096,
     .qkv_bias = true},
    {.model_type = "qwen3",
     .architecture = "Qwen3ForCausalLM",
     .max_position_embeddings = 32768,
     .num_key_value_heads = 32,
     .head_dim = 128,
     .windows = Windows::kUpperLayers,
     .sliding_window = 4096,
     .reads_attention_bias = true,
     .qk_norm = true},
    {.model_type = "gemma",
     .architecture = "GemmaForCausalLM",
     .max_position_embeddings = 8192,
     .num_key_value_heads = 16,
     .head_dim = 256,
     .tie_word_embeddings = true,
     .bos_token_id = 2,
     .eos_token_id = 1,
     .pad_token_id = 0,
     .reads_attention_bias = true,
     .gelu = true},
    {.model_type = "gemma2",
     .architecture = "Gemma2ForCausalLM",
     .max_position_embeddings = 8192,
     .num_key_value_heads = 4,
     .head_dim = 256,
     .tie_word_embeddings = true,
     .bos_token_id = 2,
     .eos_token_id = 1,
     .pad_token_id = 0,
     .windows = Windows::kEveryOther,
     .sliding_window = 4096,
     .reads_attention_bias = true,
     .gelu = true,
     .output_norms = true,
     .query_pre_attn_scalar = 256.0,
     .reads_attention_cap = true,
     .reads_final_cap = true,
     .attention_cap = 50.0,
     .final_cap = 30.0},
    {.model_type = "gemma3_text",
     .architecture = "Gemma3ForCausalLM",
     .max_position_embeddings = 131072,
     .num_key_value_heads = 4,
     .head_dim = 256,
     .rope_theta = 1e6,
     .tie_word_embeddings = true,
     .bos_token_id = 2,
     .eos_token_id = 1,
     .pad_token_id = 0,
     .windows = Windows::kFiveOfSix,
     .sliding_window = 4096,
     .two_ropes = true,
     .reads_attention_bias = true,
     .qk_norm = true,
     .gelu = true,
     .output_norms = true,
     .query_pre_attn_scalar = 256.0,
     // transformers reads attn_logit_softcapping and does not apply it.
     .reads_final_cap = true},
    {.model_type = "phi3",
     .architecture = "Phi3ForCausalLM",
     .max_position_embeddings = 4096,
     .rms_norm_eps = 1e-5,
     .bos_token_id = 1,
     .eos_token_id = 32000,
     .pad_token_id = 32000,
     .windows = Windows::kAlways,
     .fused_projections = true},
}};

}  // namespace

const Family* FindFamily(std::string_view model_type) {
  for (const Family& family : kFamilies) {
    if (model_type == family.model_type) return &family;
  }
  return nullptr;
}

std::string SupportedFamilies() {
  std::string text = "supported are ";
  for (const Family& family : kFamilies) {
    if (&family != kFamilies.begin()) text += &family == &kFamilies.back() ? " and " : ", ";
    text += std::string(family.model_type) + " (" + std::string(family.architecture) + ")";
  }
  return text;
}

}  // namespace plural::trainer
