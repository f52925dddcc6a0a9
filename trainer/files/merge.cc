#include "trainer/files/merge.h"

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/isfinite.h>

#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "trainer/base/error.h"
#include "trainer/base/file_io.h"
#include "trainer/base/json_io.h"
#include "trainer/files/adapter_files.h"
#include "trainer/files/hf_folder.h"
#include "trainer/files/model_card.h"
#include "trainer/files/nf4_files.h"
#include "trainer/files/peft_config.h"
#include "trainer/files/safetensors.h"
#include "trainer/files/weight_files.h"
#include "trainer/files/weight_manifest.h"

namespace plural::trainer {
namespace fs = std::filesystem;
using nlohmann::json;
namespace {

constexpr const char* kHeadWeight = "lm_head.weight";
constexpr const char* kEmbeddingWeight = "model.embed_tokens.weight";

[[noreturn]] void Refuse(const fs::path& path, const std::string& what) {
  throw ExitError(ExitCode::kBadData, "'" + path.string() + "': " + what);
}

class Merger {
 public:
  explicit Merger(const MergeSettings& settings)
      : settings_(settings),
        config_(ReadConfig(settings.model)),
        peft_(settings.adapter),
        // Shapes without memory.
        shape_(ModelConfig::FromFolder(settings.model), at::kFloat, at::Device(at::kMeta)),
        plan_(peft_.PlanFor(shape_)),
        base_(settings.model, "model"),
        base_names_(FindBaseTensors(shape_, base_)),
        replaced_(ReplacedNames()),
        adapter_(settings.adapter, Parameters(), replaced_) {
    for (const AdaptedLayer& layer : plan_.layers) layers_[layer.path + ".weight"] = layer;
    ModelConfig with_ends = shape_.Config();
    with_ends.AddEndTokens(GenerationEndTokens(settings.adapter));
    ends_ = with_ends.eos_token_ids;
    untied_ = shape_.Config().tie_word_embeddings && layers_.contains(kHeadWeight);
    CheckHeaders();
  }

  MergeReport Write() {
    PendingFolder pending(settings_.output);
    const std::vector<WeightShard> shards = CutIntoShards("model", Items(), settings_.shard_bytes);
    report_.files = static_cast<std::int64_t>(shards.size());
    std::map<std::string, WrittenFile> written;
    for (const WeightShard& shard : shards) {
      SafetensorsWriter writer(pending.Path() / shard.file_name, shard.items);
      for (const SafetensorsWriter::Item& item : writer.Items()) {
        writer.Write(Merged(item));
        ++report_.tensors;
      }
      const WrittenFile& file = written[shard.file_name] = writer.Close();
      report_.bytes += file.size_bytes;
    }
    // Behind what says more about files that do not fit.
    VerifyWeights(settings_.adapter);
    VerifyWeights(settings_.model);
    WriteWeightManifest(pending.Path(), written);
    WriteIndex(pending.Path(), "model", shards);
    WriteFileDurably(pending.Path() / "config.json", OutputConfig().dump(2) + "\n");
    CopyCompanions(settings_.model, pending.Path());
    WriteCard(pending.Path());
    WriteEndTokens(ends_, pending.Path());
    pending.Commit(settings_.replace ? PendingFolder::IfExists::kReplace : PendingFolder::IfExists::kFail);
    report_.untied = untied_;
    return report_;
  }

 private:
  static json ReadConfig(const fs::path& model) {
    const fs::path path = model / "config.json";
    if (!fs::exists(path)) ModelConfig::FromFolder(model);  // which says what is missing
    return ReadJsonFile(path);
  }

  std::set<std::string> Parameters() const {
    std::set<std::string> names = {kHeadWeight};
    for (const auto& [name, tensor] : shape_.BaseParameters()) names.insert(name);
    return names;
  }
  std::set<std::string> ReplacedNames() const { return {plan_.replaced.begin(), plan_.replaced.end()}; }

  // All names and shapes, before anything is written.
  void CheckHeaders() const {
    const auto meta = at::TensorOptions().dtype(at::kFloat).device(at::kMeta);
    std::map<std::string, at::Tensor> base = {{kHeadWeight, shape_.Head().linear.weight_OI}};
    std::vector<WeightFiles::Wanted> changes;
    for (const auto& [name, tensor] : shape_.BaseParameters()) base[name] = tensor;
    CheckBaseTensors(shape_, base_names_, base_);
    RequireTiedHead(base_names_, base_);
    for (const AdaptedLayer& layer : plan_.layers) {
      const at::Tensor& weight_OI = base.at(layer.path + ".weight");
      changes.push_back({layer.path + ".lora_A.weight", at::empty({layer.rank, weight_OI.size(1)}, meta)});
      changes.push_back({layer.path + ".lora_B.weight", at::empty({weight_OI.size(0), layer.rank}, meta)});
    }
    for (const std::string& name : replaced_) changes.push_back({name, base.at(name)});
    adapter_.Check(std::move(changes));
  }

  // A head that was tied comes from the embedding.
  std::string ParameterInBase(const std::string& parameter) const {
    return untied_ && parameter == kHeadWeight ? kEmbeddingWeight : parameter;
  }

  // What is written, in the model's order.
  std::vector<SafetensorsWriter::Item> Items() const {
    std::vector<dist::NamedTensor> parameters = shape_.BaseParameters();
    if (untied_) parameters.push_back({kHeadWeight, shape_.Head().linear.weight_OI});
    std::vector<SafetensorsWriter::Item> items;
    for (const auto& [name, tensor] : parameters) {
      const bool as_is = settings_.dtype == at::ScalarType::Undefined;
      items.push_back(
          {name, as_is ? DTypeInBase(name, tensor.sizes()) : settings_.dtype, tensor.sizes().vec()});
    }
    return items;
  }

  // The type that a weight in NF4 had before.
  at::ScalarType DTypeInBase(const std::string& name, at::IntArrayRef shape) const {
    const std::string parameter = ParameterInBase(name);
    const std::string& in_file = base_names_.in_file.at(parameter);
    if (base_names_.nf4.contains(parameter)) return CheckNf4(base_, in_file, shape).dtype;
    return base_.Tensors().at(in_file)->Entries().at(in_file).dtype;
  }

  at::Tensor Merged(const SafetensorsWriter::Item& item) {
    const std::string parameter = ParameterInBase(item.name);
    const std::string& in_file = base_names_.in_file.at(parameter);
    const bool nf4 = base_names_.nf4.contains(parameter);
    if (nf4) ++report_.dequantized;
    const at::Tensor stored =
        nf4 ? ReadNf4(base_, in_file, item.shape).Dequantized(at::kFloat) : base_.ReadFinite(in_file);
    adapter_.RequireSameBase(item.name, stored);
    const auto layer = layers_.find(item.name);
    at::Tensor merged = stored;
    if (replaced_.contains(item.name)) {
      merged = adapter_.Read(item.name);
    } else if (layer != layers_.end()) {
      const auto& [path, rank, alpha] = layer->second;
      const at::ScalarType wide = stored.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
      merged = stored.to(wide);  // of fp32, the tensor itself
      merged.addmm_(adapter_.Read(path + ".lora_B.weight").to(wide),
                    adapter_.Read(path + ".lora_A.weight").to(wide), /*beta=*/1.0,
                    /*alpha=*/alpha / static_cast<double>(rank));
    } else if (merged.scalar_type() == item.dtype) {
      return merged;
    }
    if (layer != layers_.end() || replaced_.contains(item.name)) ++report_.changed;
    merged = merged.to(item.dtype);
    if (!at::isfinite(merged).all().item<bool>()) {
      Refuse(settings_.adapter, "merged, '" + item.name + "' holds values that " +
                                    ConfigDTypeName(item.dtype) + " cannot hold; export with --dtype fp32");
    }
    return merged;
  }

  // The adapter's card, of a model that has it merged.
  void WriteCard(const fs::path& folder) const {
    const std::optional<Training> training = ReadTraining(settings_.adapter);
    if (!training) return;
    for (const auto& [name, content] : CardFiles(*training, "", ends_)) {
      WriteFileDurably(folder / name, content);
    }
  }

  json OutputConfig() const {
    json config = config_;
    if (untied_) config["tie_word_embeddings"] = false;
    config.erase("quantization_config");
    if (ends_.size() == 1) config["eos_token_id"] = ends_.front();
    if (ends_.size() > 1) config["eos_token_id"] = ends_;
    if (settings_.dtype != at::ScalarType::Undefined) {
      // transformers 5 writes the one, transformers 4 the other.
      config[config.contains("dtype") ? "dtype" : "torch_dtype"] = ConfigDTypeName(settings_.dtype);
    }
    return config;
  }

  const MergeSettings& settings_;
  json config_;
  PeftConfig peft_;
  Decoder shape_;
  AdapterPlan plan_;
  WeightFiles base_;
  BaseTensorNames base_names_;
  std::set<std::string> replaced_;
  AdapterFiles adapter_;
  std::map<std::string, AdaptedLayer> layers_;  // by the name of their weight
  bool untied_ = false;
  std::vector<std::int64_t> ends_;  // of the adapter, then of the model
  MergeReport report_;
};

}  // namespace

MergeReport MergeAdapter(const MergeSettings& settings) {
  const c10::NoGradGuard no_grad;
  std::error_code error;
  if (fs::exists(fs::symlink_status(settings.output, error))) {
    // What is replaced is removed: a model's folder alone, that holds no folder, such as one of our inputs.
    bool model = fs::is_regular_file(settings.output / "config.json", error);
    for (const fs::path& input : {settings.model, settings.adapter}) {
      model = model && !fs::equivalent(settings.output, input, error);
    }
    for (const auto& entry : fs::directory_iterator(settings.output, error)) {
      model = model && entry.is_regular_file(error) && !entry.is_symlink(error);
    }
    if (!settings.replace || !model) {
      throw ExitError(ExitCode::kCannotCreate,
                      settings.output.string() + ": exists" +
                          (!settings.replace ? "; give --force to replace it, or name another output"
                                             : " and is not an exported model; name another output"));
    }
  }
  for (const fs::path& folder : {settings.model, settings.adapter}) {
    if (LatentsIn(folder) == 0) continue;
    Refuse(folder, "has latents of method cvf, which a plain model cannot hold; use it as it is");
  }
  return Merger(settings).Write();
}

}  // namespace plural::trainer
