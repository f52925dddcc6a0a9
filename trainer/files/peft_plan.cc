// Which layers of a model an adapter_config.json means.
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "trainer/files/peft_config.h"

namespace plural::trainer {
using nlohmann::json;
namespace {

constexpr const char* kHeadModule = "lm_head";
constexpr const char* kEmbedding = "model.embed_tokens";
// Steps of PCRE2 for all expressions and layers together: some seconds.
constexpr std::int64_t kMaxSteps = 200'000'000, kManyLayers = 1000;

// A path, or its end behind a dot.
bool IsOrEndsWith(std::string_view path, std::string_view name) {
  if (!path.ends_with(name)) return false;
  return path.size() == name.size() || path[path.size() - name.size() - 1] == '.';
}

bool IsNumber(std::string_view text) {
  return !text.empty() && text.size() < 10 &&
         std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

std::vector<std::string> SplitPath(const std::string& path) {
  std::vector<std::string> parts(1);
  for (const char c : path) {
    if (c == '.') {
      parts.emplace_back();
    } else {
      parts.back() += c;
    }
  }
  return parts;
}

struct Module {
  std::string path;
  bool linear = false;
};

// Modules with weights of their own, in the model's order.
std::vector<Module> ModulesOf(const Decoder& model) {
  constexpr std::string_view kWeight = ".weight";
  std::vector<Module> modules;
  for (const auto& [name, tensor] : model.BaseParameters()) {
    if (!name.ends_with(kWeight)) continue;
    const std::string path = name.substr(0, name.size() - kWeight.size());
    modules.push_back({path, tensor.dim() == 2 && path != kEmbedding});
  }
  if (model.Config().tie_word_embeddings) modules.push_back({kHeadModule, true});
  return modules;
}

}  // namespace

bool PeftConfig::Matches(const std::string& key, const ModulePattern& expression, const std::string& path,
                         ModulePattern::Where where) const {
  try {
    return expression.Matches(path, where,
                              static_cast<std::uint32_t>(kMaxSteps / kManyLayers / expressions_));
  } catch (const ModulePattern::Error& error) {
    Fail(key, "the regular expression is not supported: " + std::string(error.what()));
  }
}

// The value of the first pattern that matches the path or its end behind a dot; null: none does.
const json* PeftConfig::ValueFor(const std::string& key, const std::vector<LayerPattern>& patterns,
                                 const std::string& path) const {
  for (const auto& [name, expression, value] : patterns) {
    const bool matches = expression ? Matches(key, *expression, path, ModulePattern::Where::kStart)
                         : name.starts_with('^') ? path == std::string_view(name).substr(1)
                                                 : IsOrEndsWith(path, name);
    if (matches) return &value;
  }
  return nullptr;
}

bool PeftConfig::Excluded(const std::string& path) const {
  for (const std::string& saved : modules_to_save_) {
    if (("." + path + ".").find("." + saved + ".") != std::string::npos) return true;
  }
  if (excluded_expression_) {
    return Matches("exclude_modules", *excluded_expression_, path, ModulePattern::Where::kWhole);
  }
  return std::any_of(excluded_.begin(), excluded_.end(),
                     [&](const std::string& name) { return IsOrEndsWith(path, name); });
}

bool PeftConfig::Targeted(const std::string& path) const {
  if (targets_expression_) {
    return Matches("target_modules", *targets_expression_, path, ModulePattern::Where::kWhole);
  }
  // A full path counts whatever layers_to_transform says.
  if (std::find(targets_.begin(), targets_.end(), path) != targets_.end()) return true;
  return std::any_of(targets_.begin(), targets_.end(),
                     [&](const std::string& target) { return IsOrEndsWith(path, target); }) &&
         LayerTransformed(path);
}

bool PeftConfig::LayerTransformed(const std::string& path) const {
  const json& layers = At("layers_to_transform");
  if (layers.is_null() || (layers.is_array() && layers.empty())) return true;
  const auto listed = [&](const std::string& index) {
    const json number = std::stoull(index);
    return layers.is_array() ? std::find(layers.begin(), layers.end(), number) != layers.end()
                             : layers == number;
  };
  const std::vector<std::string> parts = SplitPath(path);
  if (layers_pattern_.empty()) {
    for (std::size_t i = 2; i + 1 < parts.size(); ++i) {
      if (IsNumber(parts[i])) return listed(parts[i]);
    }
    return false;
  }
  for (const std::string& name : layers_pattern_) {
    std::string before;
    for (std::size_t i = 0; i + 1 < parts.size(); ++i) {
      if (IsNumber(parts[i]) && IsOrEndsWith(before, name)) return listed(parts[i]);
      before += (before.empty() ? "" : ".") + parts[i];
    }
  }
  return false;
}

AdaptedLayer PeftConfig::LayerAt(const std::string& path) const {
  const json* rank = ValueFor("rank_pattern", ranks_, path);
  const json* alpha = ValueFor("alpha_pattern", alphas_, path);
  AdaptedLayer layer{path, rank_, alpha_};
  if (rank != nullptr) layer.rank = Rank("rank_pattern", *rank);
  if (alpha != nullptr) layer.alpha = Number("alpha_pattern", *alpha, 0.0, kMaxAlpha);
  if (layer.alpha <= 0.0) Fail("alpha_pattern", "positive numbers are needed");
  if (rslora_) layer.alpha *= std::sqrt(static_cast<double>(layer.rank));
  return layer;
}

bool PeftConfig::Saved(const std::string& path) const {
  return std::any_of(modules_to_save_.begin(), modules_to_save_.end(),
                     [&](const std::string& name) { return path.ends_with(name); });
}

AdapterPlan PeftConfig::PlanFor(const Decoder& model) const {
  const json& targets = At("target_modules");
  constexpr const char* kAllowed = "a regular expression, \"all-linear\" or a list of names is needed";
  if (!targets.is_string() && !targets.is_array()) Fail("target_modules", kAllowed);
  if (targets.empty() || targets == "") Fail("target_modules", kAllowed);
  for (const json& target : targets.is_array() ? targets : json::array()) {
    if (!target.is_string()) Fail("target_modules", kAllowed);
  }

  AdapterPlan plan;
  plan.dropout = dropout_;
  std::set<std::string> containers;
  for (const auto& [path, linear] : ModulesOf(model)) {
    for (std::size_t dot = path.find('.'); dot != std::string::npos; dot = path.find('.', dot + 1)) {
      containers.insert(path.substr(0, dot));
    }
    if (Saved(path)) plan.replaced.push_back(path);
    if (path == kEmbedding && !all_linear_ && Targeted(path) && !Excluded(path)) {
      Fail("target_modules", "an adapter of the embedding (" + path + ") is not supported");
    }
    const bool targeted = all_linear_ ? path != kHeadModule : linear && Targeted(path);
    if (linear && targeted && !Excluded(path)) plan.layers.push_back(LayerAt(path));
  }
  for (const std::string& name : modules_to_save_) {
    const auto ends_with_it = [&](const std::string& path) { return path.ends_with(name); };
    if (std::any_of(containers.begin(), containers.end(), ends_with_it) ||
        std::none_of(plan.replaced.begin(), plan.replaced.end(), ends_with_it)) {
      Fail("modules_to_save",
           "'" + name + "' is no single layer of the model; lm_head, embed_tokens and norms are supported");
    }
  }
  for (const std::string& path : plan.replaced) {
    if (model.Config().tie_word_embeddings && (path == kHeadModule || path == kEmbedding)) {
      Fail("modules_to_save", "the model ties its head to the embedding (tie_word_embeddings), a copy of '" +
                                  path + "' alone is not supported");
    }
  }
  if (plan.layers.empty()) Fail("target_modules", "it names no linear layer of the model");
  // From layers to their parameters.
  const std::set<std::string> layers(plan.replaced.begin(), plan.replaced.end());
  plan.replaced.clear();
  for (const auto& [name, tensor] : model.BaseParameters()) {
    if (layers.contains(name.substr(0, name.rfind('.')))) plan.replaced.push_back(name);
  }
  return plan;
}

}  // namespace plural::trainer
