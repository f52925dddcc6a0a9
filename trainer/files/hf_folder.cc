#include "trainer/files/hf_folder.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/equal.h>

#include <array>
#include <nlohmann/json.hpp>
#include <string_view>

#include "data/sha256.h"
#include "trainer/base/error.h"
#include "trainer/base/file_io.h"
#include "trainer/base/json_io.h"
#include "trainer/files/nf4_files.h"
#include "trainer/files/safetensors.h"
#include "trainer/files/weight_files.h"
#include "trainer/files/weight_manifest.h"

namespace plural::trainer {
namespace fs = std::filesystem;
namespace {

constexpr const char* kHeadName = "lm_head.weight";
constexpr const char* kEmbeddingName = "model.embed_tokens.weight";

constexpr std::array<std::string_view, 10> kTokenizerFiles = {"tokenizer.json",
                                                              "tokenizer.model",
                                                              "tokenizer_config.json",
                                                              "special_tokens_map.json",
                                                              "added_tokens.json",
                                                              "vocab.json",
                                                              "merges.txt",
                                                              "tekken.json",
                                                              "chat_template.jinja",
                                                              "chat_template.json"};

void CopyIfThere(const fs::path& source, const fs::path& folder, std::string_view name) {
  if (std::error_code error; fs::is_regular_file(source / name, error)) {
    WriteFileDurably(folder / name, ReadFile(source / name));
  }
}

// Buffers that old versions of transformers stored, and recompute.
bool IsRotaryBuffer(const std::string& name) { return name.ends_with(".rotary_emb.inv_freq"); }

// The name that a model with a language-model head gives a tensor; a folder saved from the bare decoder
// lacks the "model." in front.
std::string HeadedName(const std::string& name, bool has_prefix) {
  return has_prefix || name == kHeadName ? name : "model." + name;
}

}  // namespace

const char* ConfigDTypeName(at::ScalarType dtype) {
  switch (dtype) {
    case at::kDouble:
      return "float64";
    case at::kBFloat16:
      return "bfloat16";
    case at::kHalf:
      return "float16";
    default:
      return "float32";
  }
}

BaseTensorNames FindBaseTensors(const Decoder& model, const WeightFiles& files) {
  bool has_prefix = false;
  for (const auto& [name, reader] : files.Tensors()) has_prefix = has_prefix || name.starts_with("model.");
  BaseTensorNames names;
  std::map<std::string, std::string> name_in_file;
  for (const auto& [name, reader] : files.Tensors()) {
    if (IsRotaryBuffer(name)) names.others.push_back(name);
    name_in_file[HeadedName(name, has_prefix)] = name;
  }
  // With a tied head a file may hold the table under either name, or under both.
  const bool tied = model.Config().tie_word_embeddings;
  names.two_heads = tied && name_in_file.contains(kHeadName) && name_in_file.contains(kEmbeddingName);
  if (names.two_heads) names.others.push_back(kHeadName);
  if (tied && !names.two_heads && name_in_file.contains(kHeadName)) name_in_file[kEmbeddingName] = kHeadName;

  for (const dist::NamedTensor& parameter : model.BaseParameters()) {
    const auto found = name_in_file.find(parameter.name);
    const std::string& name = found == name_in_file.end() ? parameter.name : found->second;
    names.in_file[parameter.name] = name;
    const std::vector<std::string> companions = QuantizationCompanions(files, name);
    if (companions.empty()) continue;
    names.nf4.insert(parameter.name);
    names.others.insert(names.others.end(), companions.begin(), companions.end());
  }
  return names;
}

void RequireTiedHead(const BaseTensorNames& names, const WeightFiles& files) {
  if (!names.two_heads) return;
  if (at::equal(files.Read(kHeadName), files.Read(names.in_file.at(kEmbeddingName)))) return;
  throw ExitError(
      ExitCode::kBadData,
      "'" + files.Folder().string() +
          "': config.json ties the head to the embedding (tie_word_embeddings), but lm_head.weight "
          "and embed_tokens.weight differ; set tie_word_embeddings to false or remove one");
}

void CheckBaseTensors(const Decoder& model, const BaseTensorNames& names, const WeightFiles& files) {
  std::vector<WeightFiles::Wanted> wanted;
  std::vector<std::string> others = names.others;
  for (const auto& [parameter, tensor] : model.BaseParameters()) {
    const std::string& name = names.in_file.at(parameter);
    if (names.nf4.contains(parameter)) {
      others.push_back(name);
    } else {
      wanted.push_back({name, tensor});
    }
  }
  files.Check(wanted, others);
  for (const auto& [parameter, tensor] : model.BaseParameters()) {
    if (names.nf4.contains(parameter)) CheckNf4(files, names.in_file.at(parameter), tensor.sizes());
  }
}

void LoadBaseWeights(Decoder& model, const fs::path& folder, FullLinears full_linears) {
  const WeightFiles files(folder, "model");
  const BaseTensorNames names = FindBaseTensors(model, files);
  CheckBaseTensors(model, names, files);
  for (const auto& [parameter, tensor] : model.BaseParameters()) {
    const std::string& name = names.in_file.at(parameter);
    const bool stored_in_nf4 = names.nf4.contains(parameter);
    if (!tensor.is_meta()) {
      if (stored_in_nf4) {
        tensor.copy_(ReadNf4(files, name, tensor.sizes()).Dequantized(at::kFloat));
      } else {
        files.Fill({name, tensor});
      }
    } else if (stored_in_nf4) {
      model.SetNf4(parameter, ReadNf4(files, name, tensor.sizes()));
    } else if (full_linears == FullLinears::kToNf4) {
      model.SetNf4(parameter, QuantizeToNf4(files.ReadFinite(name, at::kFloat)));
    } else {
      files.Fill({name, model.SetFull(parameter)});
    }
  }
  RequireTiedHead(names, files);
  VerifyWeights(folder);  // behind what says more about a file that is not a model's
}

void CopyTokenizer(const fs::path& source, const fs::path& folder) {
  for (const std::string_view name : kTokenizerFiles) CopyIfThere(source, folder, name);
}

void CopyCompanions(const fs::path& source, const fs::path& folder) {
  CopyTokenizer(source, folder);
  CopyIfThere(source, folder, "generation_config.json");
}

void WriteEndTokens(const std::vector<std::int64_t>& end_tokens, const fs::path& folder) {
  if (end_tokens.empty() || GenerationEndTokens(folder) == end_tokens) return;
  const fs::path path = folder / "generation_config.json";
  nlohmann::json config = nlohmann::json::object();
  if (std::error_code error; fs::is_regular_file(path, error)) config = ReadJsonFile(path);
  config["eos_token_id"] =
      end_tokens.size() == 1 ? nlohmann::json(end_tokens.front()) : nlohmann::json(end_tokens);
  WriteFileDurably(path, config.dump(2) + "\n");
}

void SaveModel(const Decoder& model, const fs::path& folder, const fs::path& source, const SideFiles& more) {
  PendingFolder pending(folder);
  nlohmann::json config = model.Config().ToJson();
  config["torch_dtype"] = ConfigDTypeName(model.DType());
  WriteFileDurably(pending.Path() / "config.json", config.dump(2) + "\n");
  std::vector<dist::NamedTensor> weights = model.BaseParameters();
  for (dist::NamedTensor& weight : weights) weight.tensor = weight.tensor.detach().to(model.DType());
  std::map<std::string, WrittenFile> written;
  written["model.safetensors"] = WriteSafetensors(pending.Path() / "model.safetensors", std::move(weights));
  if (const Latents* latents = model.LatentHeads()) {
    written[kLatentsFile] = WriteLatents(*latents, pending.Path());
  }
  WriteWeightManifest(pending.Path(), written);
  if (!source.empty()) CopyCompanions(source, pending.Path());
  for (const auto& [name, content] : more) WriteFileDurably(pending.Path() / name, content);
  WriteEndTokens(model.Config().eos_token_ids, pending.Path());
  pending.Commit(PendingFolder::IfExists::kReplace);
}

std::string WeightsFingerprint(const fs::path& folder) {
  std::error_code error;
  const bool adapter =
      fs::exists(folder / "adapter_config.json", error) && !fs::exists(folder / "config.json", error);
  data::Sha256 hash;
  for (const std::string& name : WeightFileNames(folder, adapter ? "adapter_model" : "model")) {
    const std::string line = name + " " + data::Sha256OfFile(folder / name) + "\n";
    hash.Update(line.data(), line.size());
  }
  return hash.Hex();
}

std::string TokenizerSha256(const fs::path& folder, const std::string& file_name) {
  // The name comes from a corpus: it must not lead out of the folder.
  if (file_name.empty() || fs::path(file_name).filename() != file_name || file_name == "..") return "";
  const fs::path path = folder / file_name;
  std::error_code error;
  return fs::is_regular_file(path, error) ? data::Sha256OfFile(path) : "";
}

}  // namespace plural::trainer
