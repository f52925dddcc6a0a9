#include "trainer/files/peft_config.h"

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <set>

#include "trainer/base/error.h"
#include "trainer/base/file_io.h"
#include "trainer/base/json_io.h"
#include "trainer/base/printable.h"
#include "trainer/files/module_pattern.h"

namespace plural::trainer {
namespace fs = std::filesystem;
using nlohmann::json;
using nlohmann::ordered_json;
namespace {

constexpr std::int64_t kMaxAdapterRank = 4096;
constexpr double kMaxAlpha = 1e9;
constexpr const char* kHeadModule = "lm_head";
constexpr const char* kEmbedding = "model.embed_tokens";
constexpr std::array<std::string_view, 10> kTargets = {"q_proj",    "k_proj",    "v_proj",  "qkv_proj",
                                                       "o_proj",    "gate_proj", "up_proj", "gate_up_proj",
                                                       "down_proj", kHeadModule};

// Keys whose meaning is computed here.
constexpr std::array<std::string_view, 15> kRead = {"peft_type",
                                                    "task_type",
                                                    "bias",
                                                    "r",
                                                    "lora_alpha",
                                                    "lora_dropout",
                                                    "target_modules",
                                                    "exclude_modules",
                                                    "rank_pattern",
                                                    "alpha_pattern",
                                                    "use_rslora",
                                                    "modules_to_save",
                                                    "layers_pattern",
                                                    "layers_to_transform",
                                                    "init_lora_weights"};
// Keys that say nothing about what the adapter computes: where it comes from, how it began.
constexpr std::array<std::string_view, 9> kNotes = {
    "auto_mapping", "base_model_name_or_path", "eva_config", "inference_mode",   "megatron_core",
    "peft_version", "runtime_config",          "revision",   "qalora_group_size"};

template <std::size_t n>
bool Contains(const std::array<std::string_view, n>& list, const std::string& item) {
  return std::find(list.begin(), list.end(), item) != list.end();
}

// null, false, "", [] and {}: a feature that is off.
bool IsOff(const json& value) {
  return value.is_null() || value == false ||
         ((value.is_structured() || value.is_string()) && value.empty()) || value == "";
}

std::string Short(const json& value) {
  constexpr std::size_t kMost = 120;
  const std::string text = value.dump(-1, ' ', true);
  return text.size() <= kMost ? text : text.substr(0, kMost) + " ...";
}

// A path, or its end behind a dot.
bool IsOrEndsWith(std::string_view path, std::string_view name) {
  if (!path.ends_with(name)) return false;
  return path.size() == name.size() || path[path.size() - name.size() - 1] == '.';
}

bool IsPlainName(std::string_view name) {
  return !name.empty() && std::all_of(name.begin(), name.end(), [](unsigned char c) {
    return c < 128 && (std::isalnum(c) != 0 || c == '_' || c == '.');
  });
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

PeftConfig::PeftConfig(const fs::path& folder)
    : where_("'" + (folder / "adapter_config.json").string() + "'") {
  const fs::path path = folder / "adapter_config.json";
  if (!fs::exists(path)) {
    throw ExitError(ExitCode::kMissingInput,
                    "'" + folder.string() +
                        "' has no adapter_config.json; an adapter is a folder that PEFT or "
                        "plural wrote, in a run folder it is adapter/");
  }
  if (!ReadJsonFile(path).is_object()) {  // refuses what is no strict JSON; the order of keys is read again
    throw ExitError(ExitCode::kBadData, where_ + ": a JSON object is needed");
  }
  config_ = ordered_json::parse(ReadFile(path));

  if (At("peft_type") != "LORA") Fail("peft_type", "only \"LORA\" is supported");
  if (!At("task_type").is_null() && At("task_type") != "CAUSAL_LM") {
    Fail("task_type", "only \"CAUSAL_LM\" is supported");
  }
  if (!IsOff(At("bias")) && At("bias") != "none") Fail("bias", "only \"none\" is supported");
  const json init = At("init_lora_weights");
  const json supported = {"gaussian", "eva", "orthogonal", "mica"};
  if (!init.is_null() && !init.is_boolean() &&
      std::find(supported.begin(), supported.end(), init) == supported.end()) {
    Fail("init_lora_weights",
         "true, false and " + supported.dump() + " are supported; the others change the base weights too");
  }
  if (!At("use_rslora").is_null() && !At("use_rslora").is_boolean()) {
    Fail("use_rslora", "true or false is needed");
  }
  rslora_ = At("use_rslora") == true;
  rank_ = Rank("r", At("r"));
  if (!At("lora_alpha").is_null()) alpha_ = Number("lora_alpha", At("lora_alpha"), 0.0, kMaxAlpha);
  if (alpha_ <= 0.0) Fail("lora_alpha", "a positive number is needed");
  if (!At("lora_dropout").is_null()) dropout_ = Number("lora_dropout", At("lora_dropout"), 0.0, 1.0);
  modules_to_save_ = Names("modules_to_save");
  RefuseOtherFeatures();
  const json layers = At("layers_to_transform");
  for (const json& layer : layers.is_array() ? layers : json::array({layers})) {
    if (layers.is_null() || layer.is_number_unsigned()) continue;
    Fail("layers_to_transform", "a layer number or a list of them is needed");
  }
  if (At("target_modules").is_string() && !IsOff(layers)) {
    Fail("layers_to_transform", "it cannot stand beside a target_modules that is a regular expression");
  }
  if (!IsOff(At("layers_pattern")) && IsOff(layers)) {
    Fail("layers_pattern", "it needs layers_to_transform");
  }
}

void PeftConfig::Fail(const std::string& key, const std::string& what) const {
  throw ExitError(ExitCode::kBadData, Printable(where_ + ": " + key + " is " + Short(At(key)) + "; " + what));
}

json PeftConfig::At(std::string_view key) const {
  const auto found = config_.find(key);
  return found == config_.end() ? json() : json(*found);
}

std::int64_t PeftConfig::Rank(const std::string& key, const json& value) const {
  if (!value.is_number_integer() || value < 1 || value > kMaxAdapterRank) {
    Fail(key, "a whole number from 1 to " + std::to_string(kMaxAdapterRank) + " is needed");
  }
  return value.get<std::int64_t>();
}

double PeftConfig::Number(const std::string& key, const json& value, double smallest, double largest) const {
  if (!value.is_number() || !(value.get<double>() >= smallest && value.get<double>() <= largest)) {
    Fail(key, "a number from 0 to " + std::to_string(static_cast<std::int64_t>(largest)) + " is needed");
  }
  return value.get<double>();
}

// null, or a list of plain module names.
std::vector<std::string> PeftConfig::Names(const std::string& key) const {
  const json list = At(key);
  if (IsOff(list)) return {};
  std::vector<std::string> names;
  if (!list.is_array()) Fail(key, "null or a list of names is needed");
  for (const json& name : list) {
    if (!name.is_string() || !IsPlainName(name.get<std::string>())) {
      Fail(key, "names of letters, digits, '_' and '.' are supported");
    }
    names.push_back(name.get<std::string>());
  }
  return names;
}

// Everything else must be off, known or not: a feature of tomorrow changes what the adapter computes.
void PeftConfig::RefuseOtherFeatures() const {
  for (const auto& [key, value] : config_.items()) {
    if (Contains(kRead, key) || Contains(kNotes, key) || IsOff(value)) continue;
    Fail(key, "this feature of PEFT is not supported, only plain LoRA is");
  }
}

// Python's re.fullmatch.
bool PeftConfig::Matches(const std::string& key, const std::string& pattern, const std::string& path) const {
  try {
    return ModulePattern(pattern).Matches(path);
  } catch (const ModulePattern::Error& error) {
    Fail(key, "the regular expression is not supported: " + std::string(error.what()));
  }
}

// The value of the first pattern that matches the path or its end behind a dot; null: none does.
const ordered_json* PeftConfig::Pattern(const std::string& key, const std::string& path) const {
  const auto patterns = config_.find(key);
  if (patterns == config_.end() || IsOff(json(*patterns))) return nullptr;
  if (!patterns->is_object()) Fail(key, "an object is needed that gives patterns of layers their value");
  for (const auto& [pattern, value] : patterns->items()) {
    // One pattern a layer is what PEFT writes itself; names need no regular expression.
    const bool matches =
        IsPlainName(pattern) ? IsOrEndsWith(path, pattern) : Matches(key, "(.*\\.)?(" + pattern + ")$", path);
    if (matches) return &value;
  }
  return nullptr;
}

bool PeftConfig::Excluded(const std::string& path) const {
  for (const std::string& saved : modules_to_save_) {
    if (("." + path + ".").find("." + saved + ".") != std::string::npos) return true;
  }
  const json excluded = At("exclude_modules");
  if (IsOff(excluded)) return false;
  if (excluded.is_string()) return Matches("exclude_modules", excluded.get<std::string>(), path);
  const auto names = Names("exclude_modules");
  return std::any_of(names.begin(), names.end(),
                     [&](const std::string& name) { return IsOrEndsWith(path, name); });
}

bool PeftConfig::Targeted(const std::string& path) const {
  const json targets = At("target_modules");
  if (targets.is_string()) return Matches("target_modules", targets.get<std::string>(), path);
  for (const json& target : targets) {
    if (target == path) return true;  // a full path counts whatever layers_to_transform says
  }
  return std::any_of(targets.begin(), targets.end(),
                     [&](const json& target) { return IsOrEndsWith(path, target.get<std::string>()); }) &&
         LayerTransformed(path);
}

bool PeftConfig::LayerTransformed(const std::string& path) const {
  const json layers = At("layers_to_transform");
  if (layers.is_null() || (layers.is_array() && layers.empty())) return true;
  const auto listed = [&](const std::string& index) {
    const json number = std::stoull(index);
    return layers.is_array() ? std::find(layers.begin(), layers.end(), number) != layers.end()
                             : layers == number;
  };
  const std::vector<std::string> parts = SplitPath(path);
  const json pattern = At("layers_pattern");
  if (IsOff(pattern)) {
    for (std::size_t i = 2; i + 1 < parts.size(); ++i) {
      if (IsNumber(parts[i])) return listed(parts[i]);
    }
    return false;
  }
  const std::vector<std::string> names = pattern.is_string() && IsPlainName(pattern.get<std::string>())
                                             ? std::vector<std::string>{pattern.get<std::string>()}
                                             : Names("layers_pattern");
  for (const std::string& name : names) {
    std::string before;
    for (std::size_t i = 0; i + 1 < parts.size(); ++i) {
      if (IsNumber(parts[i]) && IsOrEndsWith(before, name)) return listed(parts[i]);
      before += (before.empty() ? "" : ".") + parts[i];
    }
  }
  return false;
}

AdaptedLayer PeftConfig::LayerAt(const std::string& path) const {
  const ordered_json* rank = Pattern("rank_pattern", path);
  const ordered_json* alpha = Pattern("alpha_pattern", path);
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
  const json targets = At("target_modules");
  constexpr const char* kAllowed = "a regular expression, \"all-linear\" or a list of names is needed";
  if (!targets.is_string() && !targets.is_array()) Fail("target_modules", kAllowed);
  if (targets.empty() || targets == "") Fail("target_modules", kAllowed);
  for (const json& target : targets.is_array() ? targets : json::array()) {
    if (!target.is_string()) Fail("target_modules", kAllowed);
  }
  std::string word = targets.is_string() ? targets.get<std::string>() : "";
  std::transform(word.begin(), word.end(), word.begin(), [](unsigned char c) { return std::tolower(c); });
  const bool all_linear = word == "all-linear";

  AdapterPlan plan;
  plan.dropout = dropout_;
  std::set<std::string> containers;
  for (const auto& [path, linear] : ModulesOf(model)) {
    for (std::size_t dot = path.find('.'); dot != std::string::npos; dot = path.find('.', dot + 1)) {
      containers.insert(path.substr(0, dot));
    }
    if (Saved(path)) plan.replaced.push_back(path);
    if (path == kEmbedding && !all_linear && Targeted(path) && !Excluded(path)) {
      Fail("target_modules", "an adapter of the embedding (" + path + ") is not supported");
    }
    const bool targeted = all_linear ? path != kHeadModule : linear && Targeted(path);
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

AdapterSettings PeftConfig::Uniform() const {
  for (const char* key : {"rank_pattern", "alpha_pattern", "use_rslora", "layers_to_transform",
                          "exclude_modules", "modules_to_save"}) {
    if (!IsOff(At(key))) {
      Fail(key,
           "training can go on with adapters of one rank, one alpha and whole target_modules only; generate, "
           "score, evaluate and export take this one");
    }
  }
  constexpr const char* kAllowed =
      "training needs a list of the names of linear layers, such as q_proj, o_proj, down_proj and lm_head";
  const json list = At("target_modules");
  if (!list.is_array() || list.empty()) Fail("target_modules", kAllowed);
  for (const json& target : list) {
    if (!target.is_string() || !Contains(kTargets, target.get<std::string>())) {
      Fail("target_modules", kAllowed);
    }
  }
  AdapterSettings settings{.rank = rank_, .alpha = alpha_, .dropout = dropout_, .targets = {}};
  for (const std::string_view target : kTargets) {  // in this order, so that equal sets are equal lists
    if (std::find(list.begin(), list.end(), target) != list.end()) settings.targets.emplace_back(target);
  }
  return settings;
}

}  // namespace plural::trainer
