// LoRA adapters in the format of Hugging Face PEFT; the other half of hf_folder.h.
#include <ATen/core/Tensor.h>
#include <ATen/ops/equal.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <string_view>

#include "trainer/error.h"
#include "trainer/file_io.h"
#include "trainer/json_io.h"
#include "trainer/model/hf_folder.h"
#include "trainer/model/safetensors.h"
#include "trainer/model/weight_files.h"

namespace plural::trainer {
namespace fs = std::filesystem;
using nlohmann::json;
namespace {

constexpr const char* kPrefix = "base_model.model.";  // PEFT's wrapper and the model inside it
constexpr std::int64_t kMaxRank = 4096;
constexpr std::array<std::string_view, 8> kTargets = {"q_proj",    "k_proj",  "v_proj",    "o_proj",
                                                      "gate_proj", "up_proj", "down_proj", "lm_head"};

// Keys that say nothing about what the adapter computes.
constexpr std::array<std::string_view, 8> kNotes = {
    "auto_mapping", "base_model_name_or_path", "inference_mode",   "megatron_core", "peft_version",
    "revision",     "runtime_config",          "qalora_group_size"};

template <std::size_t n>
bool Contains(const std::array<std::string_view, n>& list, const std::string& item) {
  return std::find(list.begin(), list.end(), item) != list.end();
}

// null, false, "", [] and {}: a feature that is off.
bool IsOff(const json& value) {
  return value.is_null() || value == false ||
         ((value.is_structured() || value.is_string()) && value.empty()) || value == "";
}

class AdapterConfigReader {
 public:
  explicit AdapterConfigReader(const fs::path& path)
      : where_("'" + path.string() + "'"), config_(ReadJsonFile(path)) {
    if (!config_.is_object()) throw ExitError(ExitCode::kBadData, where_ + ": a JSON object is needed");
  }

  AdapterSettings Read() const {
    if (At("peft_type") != "LORA") Fail("peft_type", "only \"LORA\" is supported");
    if (!At("task_type").is_null() && At("task_type") != "CAUSAL_LM") {
      Fail("task_type", "only \"CAUSAL_LM\" is supported");
    }
    if (!IsOff(At("bias")) && At("bias") != "none") Fail("bias", "only \"none\" is supported");
    const json& init = At("init_lora_weights");
    // The other ways to start (PiSSA, OLoRA, LoftQ, CorDA) change the base weights too.
    if (!init.is_null() && !init.is_boolean() && init != "gaussian" && init != "eva" &&
        init != "orthogonal") {
      Fail("init_lora_weights", "true, false, \"gaussian\", \"eva\" and \"orthogonal\" are supported");
    }
    AdapterSettings settings;
    settings.rank = Rank();
    settings.alpha = Number("lora_alpha", 8.0, 1e9);
    settings.dropout = Number("lora_dropout", 0.0, 1.0);
    if (settings.alpha <= 0.0) Fail("lora_alpha", "a positive number is needed");
    settings.targets = Targets();
    RefuseOtherFeatures();
    return settings;
  }

 private:
  [[noreturn]] void Fail(const std::string& key, const std::string& what) const {
    throw ExitError(ExitCode::kBadData, where_ + ": " + key + " is " + At(key).dump() + "; " + what);
  }
  json At(const std::string& key) const {
    const auto found = config_.find(key);
    return found == config_.end() ? json() : *found;
  }

  std::int64_t Rank() const {
    const json rank = At("r");
    if (!rank.is_number_integer() || rank < 1 || rank > kMaxRank) {
      Fail("r", "a whole number from 1 to " + std::to_string(kMaxRank) + " is needed");
    }
    return rank.get<std::int64_t>();
  }

  double Number(const std::string& key, double fallback, double largest) const {
    const json value = At(key);
    if (value.is_null()) return fallback;
    if (!value.is_number() || !(value.get<double>() >= 0.0 && value.get<double>() <= largest)) {
      Fail(key, "a number from 0 to " + std::to_string(static_cast<std::int64_t>(largest)) + " is needed");
    }
    return value.get<double>();
  }

  // In the order of kTargets, so that equal sets are equal lists.
  std::vector<std::string> Targets() const {
    constexpr const char* kAllowed =
        "a list of q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj and lm_head is needed";
    const json list = At("target_modules");
    if (!list.is_array() || list.empty()) Fail("target_modules", kAllowed);
    for (const json& target : list) {
      if (!target.is_string() || !Contains(kTargets, target.get<std::string>()))
        Fail("target_modules", kAllowed);
    }
    std::vector<std::string> targets;
    for (const std::string_view target : kTargets) {
      if (std::find(list.begin(), list.end(), target) != list.end()) targets.emplace_back(target);
    }
    return targets;
  }

  // Everything else must be off, known or not: a feature of tomorrow changes what the adapter computes.
  void RefuseOtherFeatures() const {
    constexpr std::array<std::string_view, 8> kRead = {
        "peft_type",  "task_type",    "bias",           "r",
        "lora_alpha", "lora_dropout", "target_modules", "init_lora_weights"};
    for (const auto& [key, value] : config_.items()) {
      if (Contains(kRead, key) || Contains(kNotes, key) || IsOff(value)) continue;
      Fail(key, "this feature of PEFT is not supported, only plain LoRA is");
    }
  }

  std::string where_;
  json config_;
};

// Base weights that PEFT stores beside the factors when it adapts lm_head: file name -> the model's tensor.
std::map<std::string, at::Tensor> StoredBaseWeights(const Decoder& model, const WeightFiles& files) {
  std::map<std::string, at::Tensor> base = {{"lm_head.weight", model.Head().weight_OI}};
  for (const dist::NamedTensor& parameter : model.BaseParameters()) base[parameter.name] = parameter.tensor;
  std::map<std::string, at::Tensor> stored;
  for (const auto& [file_name, reader] : files.Tensors()) {
    if (!file_name.starts_with(kPrefix)) continue;
    std::string name = file_name.substr(std::string_view(kPrefix).size());
    constexpr std::string_view kWrapped = ".base_layer.";
    if (const std::size_t at = name.find(kWrapped); at != std::string::npos)
      name.replace(at, kWrapped.size(), ".");
    if (const auto found = base.find(name); found != base.end()) stored[file_name] = found->second;
  }
  return stored;
}

// Equal in the narrower of the two dtypes: the adapter may have been made on a rounded copy of the base.
bool SameWeights(const at::Tensor& stored, const at::Tensor& base) {
  if (stored.sizes() != base.sizes()) return false;
  const at::Tensor host = base.detach().to(at::kCPU);
  const at::ScalarType narrower =
      stored.element_size() < host.element_size() ? stored.scalar_type() : host.scalar_type();
  return at::equal(stored.to(narrower), host.to(narrower));
}

}  // namespace

AdapterSettings ReadAdapterConfig(const fs::path& folder) {
  if (!fs::exists(folder / "adapter_config.json")) {
    throw ExitError(ExitCode::kMissingInput,
                    "'" + folder.string() +
                        "' has no adapter_config.json; an adapter is a folder that PEFT or "
                        "plural wrote, in a run folder it is adapter/");
  }
  return AdapterConfigReader(folder / "adapter_config.json").Read();
}

void LoadAdapterWeights(Decoder& model, const fs::path& folder) {
  const AdapterSettings found = ReadAdapterConfig(folder);
  const AdapterSettings* wanted = model.Adapter();
  if (wanted == nullptr) throw std::logic_error("LoadAdapterWeights: the model has no adapter");
  const std::string where = "'" + (folder / "adapter_config.json").string() + "'";
  if (found.rank != wanted->rank || found.alpha != wanted->alpha) {
    throw ExitError(ExitCode::kBadData, where + ": rank " + std::to_string(found.rank) + ", alpha " +
                                            std::to_string(found.alpha) + "; the model's adapter has rank " +
                                            std::to_string(wanted->rank) + ", alpha " +
                                            std::to_string(wanted->alpha));
  }
  // Targets that differ show as missing or unexpected tensors.
  const WeightFiles files(folder, "adapter_model");
  const std::map<std::string, at::Tensor> base = StoredBaseWeights(model, files);
  std::vector<std::string> others;
  for (const auto& [name, tensor] : base) others.push_back(name);
  std::vector<WeightFiles::Wanted> factors;
  for (const dist::NamedTensor& factor : model.AdapterParameters()) {
    factors.push_back({kPrefix + factor.name, factor.tensor});
  }
  files.Fill(factors, others);
  for (const auto& [name, tensor] : base) {
    if (SameWeights(files.Read(name), tensor)) continue;
    throw ExitError(ExitCode::kBadData, "'" + files.Tensors().at(name)->Path().string() + "': tensor '" +
                                            name +
                                            "' differs from the base model's; give the base model that the "
                                            "adapter was made for");
  }
}

void SaveAdapter(const Decoder& model, const fs::path& folder, const std::string& base_model_path) {
  const AdapterSettings* adapter = model.Adapter();
  if (adapter == nullptr) throw std::logic_error("SaveAdapter: the model has no adapter");
  std::vector<dist::NamedTensor> tensors;
  for (const dist::NamedTensor& factor : model.AdapterParameters()) {
    tensors.push_back({kPrefix + factor.name, factor.tensor});
  }
  // PEFT declares lora_alpha an integer, though it computes with any number.
  const bool whole = adapter->alpha == std::floor(adapter->alpha);
  // The keys that every version of PEFT since 0.8 knows: one that does not know a key refuses the folder.
  const json config = {
      {"peft_type", "LORA"},
      {"task_type", "CAUSAL_LM"},
      {"base_model_name_or_path", base_model_path.empty() ? json() : json(base_model_path)},
      {"r", adapter->rank},
      {"lora_alpha", whole ? json(static_cast<std::int64_t>(adapter->alpha)) : json(adapter->alpha)},
      {"lora_dropout", adapter->dropout},
      {"target_modules", adapter->targets},
      {"bias", "none"},
      {"fan_in_fan_out", false},
      {"inference_mode", true},
      {"init_lora_weights", true},
      {"modules_to_save", nullptr},
      {"rank_pattern", json::object()},
      {"alpha_pattern", json::object()},
      {"layers_to_transform", nullptr},
      {"layers_pattern", nullptr},
      {"use_rslora", false},
      {"auto_mapping", nullptr},
      {"revision", nullptr},
  };
  PendingFolder pending(folder);
  WriteFileDurably(pending.Path() / "adapter_config.json",
                   config.dump(2, ' ', false, json::error_handler_t::replace) + "\n");
  WriteSafetensors(pending.Path() / "adapter_model.safetensors", std::move(tensors));
  if (const Latents* latents = model.LatentHeads()) WriteLatents(*latents, pending.Path());
  pending.Commit(PendingFolder::IfExists::kReplace);
}

}  // namespace plural::trainer
