#include "trainer/files/peft_config.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <map>
#include <utility>

#include "trainer/base/error.h"
#include "trainer/base/file_io.h"
#include "trainer/base/json_io.h"
#include "trainer/base/printable.h"

namespace plural::trainer {
namespace fs = std::filesystem;
using nlohmann::json;
namespace {

constexpr std::int64_t kMaxAdapterRank = 4096;
constexpr std::size_t kMaxEntries = 4096;  // a large model has a thousand layers
constexpr std::int64_t kMaxExpressions = 256;
constexpr std::array<std::string_view, 10> kTargets = {"q_proj",    "k_proj",    "v_proj",  "qkv_proj",
                                                       "o_proj",    "gate_proj", "up_proj", "gate_up_proj",
                                                       "down_proj", "lm_head"};

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

bool IsPlainName(std::string_view name) {
  return !name.empty() && std::all_of(name.begin(), name.end(), [](unsigned char c) {
    return c < 128 && (std::isalnum(c) != 0 || c == '_' || c == '.');
  });
}

// The keys of the objects in an object, as the text orders them; a json sorts them, and an ordered_json looks
// at all keys before for each.
class KeysInOrder : public nlohmann::json_sax<json> {
 public:
  explicit KeysInOrder(const std::string& text) { json::sax_parse(text, this); }

  std::vector<std::string> Of(const std::string& object) const {
    const auto found = keys_.find(object);
    return found == keys_.end() ? std::vector<std::string>() : found->second;
  }

  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }
  bool start_object(std::size_t) override { return Enter(); }
  bool start_array(std::size_t) override { return Enter(); }
  bool end_object() override { return Leave(); }
  bool end_array() override { return Leave(); }
  bool key(string_t& key) override {
    if (depth_ == 1) object_ = key;
    if (depth_ == 2) keys_[object_].push_back(key);
    return true;
  }
  bool parse_error(std::size_t, const std::string&, const json::exception&) override { return false; }

 private:
  bool Enter() { return ++depth_ > 0; }
  bool Leave() { return --depth_ >= 0; }

  int depth_ = 0;
  std::string object_;
  std::map<std::string, std::vector<std::string>> keys_;
};

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
  config_ = ReadJsonFile(path);
  if (!config_.is_object()) throw ExitError(ExitCode::kBadData, where_ + ": a JSON object is needed");

  if (At("peft_type") != "LORA") Fail("peft_type", "only \"LORA\" is supported");
  if (!At("task_type").is_null() && At("task_type") != "CAUSAL_LM") {
    Fail("task_type", "only \"CAUSAL_LM\" is supported");
  }
  if (!IsOff(At("bias")) && At("bias") != "none") Fail("bias", "only \"none\" is supported");
  const json& init = At("init_lora_weights");
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
  ReadTargets();
  ReadLayers();
  for (const char* key : {"rank_pattern", "alpha_pattern"}) RequireFew(key);
  const KeysInOrder order(ReadFile(path));
  ranks_ = ReadPatterns("rank_pattern", order.Of("rank_pattern"));
  alphas_ = ReadPatterns("alpha_pattern", order.Of("alpha_pattern"));
}

void PeftConfig::Fail(const std::string& key, const std::string& what) const {
  throw ExitError(ExitCode::kBadData, Printable(where_ + ": " + key + " is " + Short(At(key)) + "; " + what));
}

const json& PeftConfig::At(std::string_view key) const {
  static const json absent;
  const auto found = config_.find(key);
  return found == config_.end() ? absent : *found;
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

void PeftConfig::RequireFew(const std::string& key) const {
  if (!At(key).is_structured() || At(key).size() <= kMaxEntries) return;
  Fail(key, "these are " + std::to_string(At(key).size()) + " entries, at most " +
                std::to_string(kMaxEntries) + " are supported");
}

// null, or a list of plain module names.
std::vector<std::string> PeftConfig::Names(const std::string& key) const {
  const json& list = At(key);
  if (IsOff(list)) return {};
  std::vector<std::string> names;
  if (!list.is_array()) Fail(key, "null or a list of names is needed");
  RequireFew(key);
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

// target_modules, whose type is checked where it is used, and exclude_modules.
void PeftConfig::ReadTargets() {
  const json& targets = At("target_modules");
  RequireFew("target_modules");
  std::string word = targets.is_string() ? targets.get<std::string>() : "";
  std::transform(word.begin(), word.end(), word.begin(), [](unsigned char c) { return std::tolower(c); });
  all_linear_ = word == "all-linear";
  if (targets.is_string() && !all_linear_) {
    targets_expression_ = Expression("target_modules", targets.get<std::string>());
  }
  for (const json& target : targets.is_array() ? targets : json::array()) {
    if (target.is_string()) targets_.push_back(target.get<std::string>());
  }
  const json& excluded = At("exclude_modules");
  if (excluded.is_string() && !IsOff(excluded)) {
    excluded_expression_ = Expression("exclude_modules", excluded.get<std::string>());
  } else {
    excluded_ = Names("exclude_modules");
  }
}

// layers_to_transform and layers_pattern.
void PeftConfig::ReadLayers() {
  const json& layers = At("layers_to_transform");
  for (const json& layer : layers.is_array() ? layers : json::array({layers})) {
    if (layers.is_null() || layer.is_number_unsigned()) continue;
    Fail("layers_to_transform", "a layer number or a list of them is needed");
  }
  if (At("target_modules").is_string() && !IsOff(layers)) {
    Fail("layers_to_transform", "it cannot stand beside a target_modules that is a regular expression");
  }
  const json& pattern = At("layers_pattern");
  if (IsOff(pattern)) return;
  if (IsOff(layers)) Fail("layers_pattern", "it needs layers_to_transform");
  if (pattern.is_string() && IsPlainName(pattern.get<std::string>())) {
    layers_pattern_ = {pattern.get<std::string>()};
  } else {
    layers_pattern_ = Names("layers_pattern");
  }
}

ModulePattern PeftConfig::Expression(const std::string& key, const std::string& pattern) {
  if (++expressions_ > kMaxExpressions) {
    Fail(key, "of regular expressions at most " + std::to_string(kMaxExpressions) + " are supported");
  }
  try {
    return ModulePattern(pattern);
  } catch (const ModulePattern::Error& error) {
    Fail(key, "the regular expression is not supported: " + std::string(error.what()));
  }
}

// One pattern per layer is what PEFT writes itself; names need no regular expression.
std::vector<PeftConfig::LayerPattern> PeftConfig::ReadPatterns(const std::string& key,
                                                               const std::vector<std::string>& order) {
  const json& values = At(key);
  if (IsOff(values)) return {};
  if (!values.is_object()) Fail(key, "an object is needed that gives patterns of layers their value");
  std::vector<LayerPattern> patterns;
  for (const std::string& pattern : order) {
    const auto value = values.find(pattern);
    if (value == values.end()) Fail(key, "the file changed while it was read");
    LayerPattern& entry = patterns.emplace_back();
    entry.value = *value;
    if (IsPlainName(pattern.starts_with('^') ? pattern.substr(1) : pattern)) {
      entry.name = pattern;
    } else {
      entry.expression = Expression(key, "(.*\\.)?(" + pattern + ")$");
    }
  }
  return patterns;
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
  const json& list = At("target_modules");
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
