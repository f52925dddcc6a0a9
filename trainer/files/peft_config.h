// adapter_config.json of Hugging Face PEFT: which layers of a model a LoRA adapter changes, and how much.
//
// Owns: the meaning of the config's keys, by PEFT 0.21's rules; the refusal of every feature that changes
// what an adapter computes and is not computed here. Does not own: tensors (hf_folder.h). Thread rule: a
// value.
//
// Errors: ExitError(kBadData) that names file and key.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "trainer/model/decoder.h"

namespace plural::trainer {

// One linear layer with LoRA factors: y += alpha / rank * B A x.
struct AdaptedLayer {
  std::string path;  // "model.layers.0.self_attn.q_proj", "lm_head"
  std::int64_t rank = 0;
  double alpha = 0.0;  // lora_alpha; with use_rslora times sqrt(rank), so that alpha / rank is the scale
};

struct AdapterPlan {
  std::vector<AdaptedLayer> layers;   // in the model's order
  double dropout = 0.0;               // on the adapter's input
  std::vector<std::string> replaced;  // parameters that the adapter holds in full (modules_to_save)
};

class PeftConfig {
 public:
  // Reads <folder>/adapter_config.json and refuses what is not supported. Errors: also
  // ExitError(kMissingInput) when the folder has none.
  explicit PeftConfig(const std::filesystem::path& folder);

  // What the adapter does to `model`: target_modules (names, or a regular expression over paths),
  // exclude_modules, layers_to_transform, rank_pattern, alpha_pattern, use_rslora, modules_to_save.
  // The model's tensors are not read. Errors: a config that changes no layer of the model, adapts the
  // embedding, or replaces a part of it that is no single layer or is tied.
  AdapterPlan PlanFor(const Decoder& model) const;

  // The whole config as one rank, alpha and list of q_proj ... lm_head: what training can go on with.
  // Errors: a config that says more than that.
  AdapterSettings Uniform() const;

  bool ReplacesWeights() const { return !modules_to_save_.empty(); }

 private:
  [[noreturn]] void Fail(const std::string& key, const std::string& what) const;
  nlohmann::json At(std::string_view key) const;
  std::int64_t Rank(const std::string& key, const nlohmann::json& value) const;
  double Number(const std::string& key, const nlohmann::json& value, double smallest, double largest) const;
  std::vector<std::string> Names(const std::string& key) const;
  void RefuseOtherFeatures() const;

  bool Matches(const std::string& key, const std::string& pattern, const std::string& path) const;
  const nlohmann::ordered_json* Pattern(const std::string& key, const std::string& path) const;
  bool Excluded(const std::string& path) const;
  bool Targeted(const std::string& path) const;
  bool LayerTransformed(const std::string& path) const;
  AdaptedLayer LayerAt(const std::string& path) const;
  bool Saved(const std::string& path) const;

  std::string where_;
  nlohmann::ordered_json config_;  // of several patterns that match, the file's first wins
  std::int64_t rank_ = 8;
  double alpha_ = 8.0;
  double dropout_ = 0.0;
  bool rslora_ = false;
  std::vector<std::string> modules_to_save_;
};

}  // namespace plural::trainer
