// Hugging Face folders: models and PEFT adapters on disk.
//
// Owns: which tensor stands in which file, what is missing or does not fit, what is written. Does not
// own: the safetensors format (safetensors.h), the config's meaning (config.h). Thread rule: one thread.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "trainer/files/weight_files.h"
#include "trainer/model/decoder.h"

namespace plural::trainer {

struct AdapterPlan;  // peft_config.h

// Which tensors of a model's weight files are its base parameters.
struct BaseTensorNames {
  std::map<std::string, std::string> in_file;  // parameter -> name in the files; its own where it is missing
  std::vector<std::string> others;             // tensors that are no weights of their own
  std::set<std::string> nf4;                   // parameters that are stored in NF4
  bool two_heads = false;                      // a tied head is stored beside the embedding
};
BaseTensorNames FindBaseTensors(const Decoder& model, const WeightFiles& files);
// Headers only. Errors: those of WeightFiles::Check and CheckNf4.
void CheckBaseTensors(const Decoder& model, const BaseTensorNames& names, const WeightFiles& files);
// Errors: ExitError(kBadData) when a tied head is stored and is not the embedding.
void RequireTiedHead(const BaseTensorNames& names, const WeightFiles& files);

// How the linear weights of the layers are held that a folder stores in full; what it stores in NF4 stays so.
enum class FullLinears { kKeep, kToNf4 };
// `quantize` is "none" or "nf4", which recipes and commands have checked.
inline FullLinears FullLinearsFor(std::string_view quantize) {
  return quantize == "nf4" ? FullLinears::kToNf4 : FullLinears::kKeep;
}

// Fills the base weights of `model` from `folder` (one model.safetensors, or shards with
// model.safetensors.index.json), converting to the model's dtype or quantising tensor by tensor. Linear
// weights are in NF4 only in a model made with Decoder::Linears::kLater; everything else that the folder
// stores in NF4 is dequantised. Errors: ExitError(kMissingInput) for absent files; ExitError(kBadData) that
// lists missing, unexpected and mismatched tensors (at most 20 of each, and the count), non-finite values,
// bad shards; those of ReadNf4.
void LoadBaseWeights(Decoder& model, const std::filesystem::path& folder,
                     FullLinears full_linears = FullLinears::kKeep);
// Copies the files of a tokenizer, with its chat template, as far as there are any.
void CopyTokenizer(const std::filesystem::path& source, const std::filesystem::path& folder);
// Copies the files that belong to a model besides config and weights: tokenizer and generation defaults, as
// far as there are any.
void CopyCompanions(const std::filesystem::path& source, const std::filesystem::path& folder);
// Makes generation_config.json name `end_tokens`; what else it says stays. Nothing is written when it does so
// already, or when there are none.
void WriteEndTokens(const std::vector<std::int64_t>& end_tokens, const std::filesystem::path& folder);
// The name that config.json gives a dtype.
const char* ConfigDTypeName(at::ScalarType dtype);
// More files of a folder, such as its card: name -> content.
using SideFiles = std::map<std::string, std::string>;
// Writes config.json and model.safetensors; copies tokenizer files of `source` when it is not empty.
// The folder appears whole: it is written beside `folder`, synced and renamed. weights.json has the sizes and
// hashes of its weight files, which every loading compares (weight_manifest.h).
void SaveModel(const Decoder& model, const std::filesystem::path& folder, const std::filesystem::path& source,
               const SideFiles& more = {});

// What the adapter_config.json of an adapter says that training can go on with: one rank, alpha and list of
// targets for the whole model. Errors: those of PeftConfig and PeftConfig::Uniform.
AdapterSettings ReadAdapterConfig(const std::filesystem::path& folder);
// Fills the LoRA factors of `model`, whose adapter must have the folder's rank and targets.
void LoadAdapterWeights(Decoder& model, const std::filesystem::path& folder);
// Adds any adapter that PeftConfig reads, for inference: what `plan` of the folder says, whose model has its
// base weights already. Copies of whole layers take the place of the base's. Errors: those of
// WeightFiles::Fill; ExitError(kBadData) when PEFT stored base weights of another model.
void AttachAdapter(Decoder& model, const std::filesystem::path& folder, const AdapterPlan& plan);
// For options that compare with the model without its adapter. Errors: ExitError(kUsage) naming the option
// when the adapter (may be "") replaces base weights.
void RequireBaseKept(const std::filesystem::path& adapter, const std::string& option);
// adapter_config.json and adapter_model.safetensors as Hugging Face PEFT writes them,
// generation_config.json with what ends an answer, the tokenizer files of the folder `tokenizer` where one is
// given; appears whole. `base_model`: what adapter_config.json names as its base.
void SaveAdapter(const Decoder& model, const std::filesystem::path& folder, const std::string& base_model,
                 const SideFiles& more = {}, const std::filesystem::path& tokenizer = {});

// latents.safetensors, which method cvf adds to the folder of its adapter or model: its metadata give the
// format's version, the number of latents and the hidden size.
// How many latents the folder has, 0 without the file. Errors: ExitError(kBadData) for a file of another
// format.
std::int64_t LatentsIn(const std::filesystem::path& folder);
// Fills the latents of `model`, which has as many. Errors: those of LoadBaseWeights.
void LoadLatents(Decoder& model, const std::filesystem::path& folder);
inline constexpr const char* kLatentsFile = "latents.safetensors";
// Into a folder that exists; SaveModel and SaveAdapter do so where the model has latents.
WrittenFile WriteLatents(const Latents& latents, const std::filesystem::path& folder);

// SHA-256 over the names and bytes of the folder's weight files: what a resume compares.
std::string WeightsFingerprint(const std::filesystem::path& folder);
// SHA-256 of a tokenizer file of the folder, or "" when it has none of that name.
std::string TokenizerSha256(const std::filesystem::path& folder, const std::string& file_name);

}  // namespace plural::trainer
