// adapter_config.json of Hugging Face PEFT: which layers of a model a LoRA adapter changes, and how much.
//
// Owns: the meaning of the config's keys, by PEFT 0.21's rules; the refusal of every feature that changes
// what an adapter computes and is not computed here. Does not own: tensors (hf_folder.h). Thread rule: a
// value.
//
// The file is somebody else's, so work is bounded: 4096 entries in a list of names, in rank_pattern and in
// alpha_pattern, of which 256 in all may be regular expressions, which share a number of steps.
//
// Errors: ExitError(kBadData) that names file and key.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "trainer/files/module_pattern.h"
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
  static constexpr double kMaxAlpha = 1e9;

  // An entry of rank_pattern or alpha_pattern: the layers that it names, and their value.
  struct LayerPattern {
    std::string name;                         // of a path, or of its end behind a dot
    std::optional<ModulePattern> expression;  // in place of a name
    nlohmann::json value;
  };

  [[noreturn]] void Fail(const std::string& key, const std::string& what) const;
  const nlohmann::json& At(std::string_view key) const;
  std::int64_t Rank(const std::string& key, const nlohmann::json& value) const;
  double Number(const std::string& key, const nlohmann::json& value, double smallest, double largest) const;
  void RequireFew(const std::string& key) const;
  std::vector<std::string> Names(const std::string& key) const;
  void RefuseOtherFeatures() const;

  void ReadTargets();
  void ReadLayers();
  ModulePattern Expression(const std::string& key, const std::string& pattern);
  std::vector<LayerPattern> ReadPatterns(const std::string& key, const std::vector<std::string>& order);

  bool Matches(const std::string& key, const ModulePattern& expression, const std::string& path,
               ModulePattern::Where where) const;
  const nlohmann::json* ValueFor(const std::string& key, const std::vector<LayerPattern>& patterns,
                                 const std::string& path) const;
  bool Excluded(const std::string& path) const;
  bool Targeted(const std::string& path) const;
  bool LayerTransformed(const std::string& path) const;
  AdaptedLayer LayerAt(const std::string& path) const;
  bool Saved(const std::string& path) const;

  std::string where_;
  nlohmann::json config_;
  std::int64_t rank_ = 8;
  double alpha_ = 8.0;
  double dropout_ = 0.0;
  bool rslora_ = false;
  std::vector<std::string> modules_to_save_;
  // Names, or a regular expression.
  std::vector<std::string> targets_, excluded_, layers_pattern_;
  std::optional<ModulePattern> targets_expression_, excluded_expression_;
  bool all_linear_ = false;                   // in place of targets
  std::vector<LayerPattern> ranks_, alphas_;  // in the file's order: the first that matches counts
  std::int64_t expressions_ = 0;              // how many there are in all
};

}  // namespace plural::trainer
