// LoRA adapters in the format of Hugging Face PEFT; the other half of hf_folder.h.
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <stdexcept>
#include <utility>

#include "trainer/base/error.h"
#include "trainer/base/file_io.h"
#include "trainer/files/adapter_files.h"
#include "trainer/files/hf_folder.h"
#include "trainer/files/hub_cache.h"
#include "trainer/files/peft_config.h"
#include "trainer/files/safetensors.h"
#include "trainer/files/weight_manifest.h"

namespace plural::trainer {
namespace fs = std::filesystem;
using nlohmann::json;
namespace {

// Base parameters, the head's also where it is tied.
std::map<std::string, at::Tensor> BaseWeights(const Decoder& model) {
  std::map<std::string, at::Tensor> weights = {{"lm_head.weight", model.Head().linear.weight_OI}};
  for (const dist::NamedTensor& parameter : model.BaseParameters())
    weights[parameter.name] = parameter.tensor;
  return weights;
}

// Fills the model's factors and the base weights `replaced`.
void FillFromFolder(Decoder& model, const fs::path& folder, const std::set<std::string>& replaced) {
  for (const std::string& name : replaced) {
    if (model.Nf4(name) != nullptr) model.SetFull(name);
  }
  const std::map<std::string, at::Tensor> base = BaseWeights(model);
  std::set<std::string> parameters;
  for (const auto& [name, tensor] : base) parameters.insert(name);
  const AdapterFiles files(folder, parameters, replaced);
  std::vector<WeightFiles::Wanted> wanted;
  for (const dist::NamedTensor& factor : model.AdapterParameters()) {
    wanted.push_back({factor.name, factor.tensor});
  }
  for (const std::string& name : replaced) wanted.push_back({name, base.at(name)});
  files.Fill(std::move(wanted));
  for (const std::string& name : files.StoredBase()) {
    const Nf4Weight* nf4 = model.Nf4(name);
    files.RequireSameBase(name, nf4 == nullptr ? base.at(name) : nf4->Dequantized(model.DType()));
  }
  VerifyWeights(folder);  // behind what says more about a file that is not an adapter's
}

}  // namespace

AdapterSettings ReadAdapterConfig(const fs::path& folder) { return PeftConfig(folder).Uniform(); }

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
  FillFromFolder(model, folder, {});
}

void AttachAdapter(Decoder& model, const fs::path& folder, const AdapterPlan& plan) {
  // Layers of one rank and alpha are added together.
  std::map<std::pair<std::int64_t, double>, AdapterSettings> parts;
  for (const AdaptedLayer& layer : plan.layers) {
    AdapterSettings& part = parts[{layer.rank, layer.alpha}];
    part = {layer.rank, layer.alpha, plan.dropout, std::move(part.targets)};
    part.targets.push_back(layer.path);
  }
  for (const auto& [rank_and_alpha, settings] : parts) {
    model.AddAdapter(settings, /*seed=*/0);  // every value is overwritten
  }
  FillFromFolder(model, folder, {plan.replaced.begin(), plan.replaced.end()});
}

void RequireBaseKept(const fs::path& adapter, const std::string& option) {
  if (adapter.empty() || !PeftConfig(adapter).ReplacesWeights()) return;
  throw ExitError(ExitCode::kUsage,
                  option + " needs the model without its adapter, and '" + adapter.string() +
                      "' replaces weights of the model (modules_to_save in adapter_config.json)");
}

void SaveAdapter(const Decoder& model, const fs::path& folder, const std::string& base_model,
                 const SideFiles& more, const fs::path& tokenizer) {
  const AdapterSettings* adapter = model.Adapter();
  if (adapter == nullptr) throw std::logic_error("SaveAdapter: the model has no adapter");
  std::vector<dist::NamedTensor> tensors;
  for (const dist::NamedTensor& factor : model.AdapterParameters()) {
    tensors.push_back({kAdapterPrefix + factor.name, factor.tensor});
  }
  const auto [base, revision] = SplitRevision(base_model);  // two keys in PEFT
  // PEFT declares lora_alpha an integer, though it computes with any number.
  const bool whole = adapter->alpha == std::floor(adapter->alpha);
  // The keys that every version of PEFT since 0.8 knows: one that does not know a key refuses the folder.
  const json config = {
      {"peft_type", "LORA"},
      {"task_type", "CAUSAL_LM"},
      {"base_model_name_or_path", base.empty() ? json() : json(base)},
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
      {"revision", revision.empty() ? json() : json(revision)},
  };
  PendingFolder pending(folder);
  WriteFileDurably(pending.Path() / "adapter_config.json",
                   config.dump(2, ' ', false, json::error_handler_t::replace) + "\n");
  std::map<std::string, WrittenFile> written;
  written["adapter_model.safetensors"] =
      WriteSafetensors(pending.Path() / "adapter_model.safetensors", std::move(tensors));
  if (const Latents* latents = model.LatentHeads()) {
    written[kLatentsFile] = WriteLatents(*latents, pending.Path());
  }
  WriteWeightManifest(pending.Path(), written);
  if (!tokenizer.empty()) CopyTokenizer(tokenizer, pending.Path());
  for (const auto& [name, content] : more) WriteFileDurably(pending.Path() / name, content);
  WriteEndTokens(model.Config().eos_token_ids, pending.Path());
  pending.Commit(PendingFolder::IfExists::kReplace);
}

}  // namespace plural::trainer
