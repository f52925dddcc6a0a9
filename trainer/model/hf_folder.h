// Hugging Face folders: models and PEFT adapters on disk.
//
// Owns: which tensor stands in which file, what is missing or does not fit, what is written. Does not
// own: the safetensors format (safetensors.h), the config's meaning (config.h). Thread rule: one thread.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "trainer/model/decoder.h"

namespace plural::trainer {

// Fills the base weights of `model` from `folder` (one model.safetensors, or shards with
// model.safetensors.index.json), converting to the model's dtype tensor by tensor.
// Errors: ExitError(kMissingInput) for absent files; ExitError(kBadData) that lists missing, unexpected
// and mismatched tensors (at most 20 of each, and the count), non-finite values, bad shards.
void LoadBaseWeights(Decoder& model, const std::filesystem::path& folder);
// Writes config.json and model.safetensors; copies tokenizer files of `source` when it is not empty.
// The folder appears whole: it is written beside `folder`, synced and renamed.
void SaveModel(const Decoder& model, const std::filesystem::path& folder,
               const std::filesystem::path& source);

// What adapter_config.json says, checked. Errors name the file and key.
AdapterSettings ReadAdapterConfig(const std::filesystem::path& folder);
// Fills the LoRA factors of `model`, whose adapter must have the folder's rank and targets.
void LoadAdapterWeights(Decoder& model, const std::filesystem::path& folder);
// adapter_config.json and adapter_model.safetensors as Hugging Face PEFT writes them; appears whole.
void SaveAdapter(const Decoder& model, const std::filesystem::path& folder,
                 const std::string& base_model_path);

// latents.safetensors, which method cvf adds to the folder of its adapter or model: its metadata give the
// format's version, the number of latents and the hidden size.
// How many latents the folder has, 0 without the file. Errors: ExitError(kBadData) for a file of another
// format.
std::int64_t LatentsIn(const std::filesystem::path& folder);
// Fills the latents of `model`, which has as many. Errors: those of LoadBaseWeights.
void LoadLatents(Decoder& model, const std::filesystem::path& folder);
// Into a folder that exists; SaveModel and SaveAdapter do so where the model has latents.
void WriteLatents(const Latents& latents, const std::filesystem::path& folder);

// SHA-256 over the names and bytes of the folder's weight files: what a resume compares.
std::string WeightsFingerprint(const std::filesystem::path& folder);
// SHA-256 of a tokenizer file of the folder, or "" when it has none of that name.
std::string TokenizerSha256(const std::filesystem::path& folder, const std::string& file_name);

}  // namespace plural::trainer
