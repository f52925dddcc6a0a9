// The shape of a decoder, as a Hugging Face config.json states it.
//
// Owns: reading and writing config.json, what follows from a shape. Does not own: the table of
// supported families (families.h), weights. Thread rule: a value.
//
// A family of models is nothing but a set of values here: no later code asks for its name.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "trainer/ops/terms.h"

namespace plural::trainer {

// One of the linear layers that every decoder layer has.
struct LinearShape {
  std::string path;  // "self_attn.q_proj"
  std::int64_t out_features = 0, in_features = 0;
  bool bias = false;

  std::string Name() const { return path.substr(path.find('.') + 1); }  // "q_proj"
};

// The end tokens that the generation_config.json in a model's or adapter's folder names; none
// without that file.
std::vector<std::int64_t> GenerationEndTokens(const std::filesystem::path& folder);

struct ModelConfig {
  std::string model_type;    // of the table in families.cc: "llama", "gemma2", ...
  std::string architecture;  // "LlamaForCausalLM"
  std::int64_t vocab_size = 0;
  std::int64_t hidden_size = 0;
  std::int64_t intermediate_size = 0;
  std::int64_t num_hidden_layers = 0;
  std::int64_t num_attention_heads = 0;
  std::int64_t num_key_value_heads = 0;
  std::int64_t head_dim = 0;
  std::int64_t max_position_embeddings = 0;
  double rms_norm_eps = 1e-6;
  double initializer_range = 0.02;
  bool tie_word_embeddings = false;
  std::vector<std::int64_t> eos_token_ids;  // any of them ends an answer; the first is the one to write
  std::int64_t bos_token_id = -1;           // -1: none
  std::int64_t pad_token_id = -1;           // -1: none

  // Attention. A window of n lets a row see itself and the n - 1 positions before it.
  std::int64_t sliding_window = 0;      // 0: none
  std::vector<bool> sliding_layers;     // which layers have the window; empty: all
  Rope rope;                            // of layers without a window, or of all
  std::optional<Rope> sliding_rope;     // of layers with one
  double query_pre_attn_scalar = 0.0;   // scores are scaled by its -1/2 power; 0: head_dim
  double attn_logit_softcapping = 0.0;  // bound of scores (SoftCap in pointwise.h); 0: none
  bool qk_norm = false;                 // every query and key head is normalised before it is rotated
  bool qkv_bias = false, o_bias = false, mlp_bias = false;
  bool fused_projections = false;  // q, k, v are one linear layer, gate and up another

  // Everything else.
  Activation activation = Activation::kSilu;
  double norm_weight_offset = 0.0;       // added to the weights of all norms
  bool output_norms = false;             // attention and feed-forward have norms of their outputs
  bool scaled_embedding = false;         // embeddings are multiplied by the root of hidden_size
  double final_logit_softcapping = 0.0;  // bound of the head's logits; 0: none

  // True when config.json declares quantised weights; the weights' files tell which of them are in
  // NF4 (nf4_files.h).
  bool stored_in_nf4 = false;

  // Errors: ExitError(kBadData) for an unknown architecture, kind of rope scaling or activation,
  // and for keys that ask for something unsupported. It names what was found, what is supported and
  // `where` (the file or recipe key).
  static ModelConfig FromJson(const nlohmann::json& json, const std::string& where);
  // Its end tokens are those of config.json and those of generation_config.json.
  static ModelConfig FromFolder(const std::filesystem::path& folder);
  // For transformers 4 and 5. The model_type must be in the table of families.
  nlohmann::json ToJson() const;

  // Puts `ids` before the present end tokens; ids outside the vocabulary are left out.
  void AddEndTokens(std::span<const std::int64_t> ids);

  bool HasWindow(std::int64_t layer) const;
  std::int64_t WindowOf(std::int64_t layer) const { return HasWindow(layer) ? sliding_window : 0; }
  const Rope& RopeOf(std::int64_t layer) const;
  double AttentionScale() const;
  AttentionTerms Attention() const;
  NormTerms Norms() const { return {.eps = rms_norm_eps, .weight_offset = norm_weight_offset}; }
  // The linear layers of a decoder layer, in the order of their use.
  std::vector<LinearShape> LayerLinears() const;
  // One of them, or the head, by its name in adapter.targets. Errors: ExitError(kBadRecipe).
  LinearShape LinearNamed(const std::string& name) const;
  std::string LinearNames() const;  // "q_proj, k_proj, ..., lm_head"
  std::int64_t ParameterCount() const;
};

}  // namespace plural::trainer
