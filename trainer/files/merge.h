// A LoRA adapter merged into the weights of its model: W + alpha / rank * B A, written as a model's folder.
//
// Owns: the merge, tensor by tensor. Does not own: the adapter's config (peft_config.h), names (hf_folder.h,
// adapter_files.h), shards (weight_files.h). Thread rule: one thread.
//
// Memory: the largest tensor, as stored, in fp32 and as written; headers of all files.
#pragma once

#include <ATen/core/TensorBody.h>

#include <cstdint>
#include <filesystem>

namespace plural::trainer {

struct MergeSettings {
  std::filesystem::path model, adapter;
  std::filesystem::path output;                      // must not exist, or be replaced
  bool replace = false;                              // a model folder of that name
  at::ScalarType dtype = at::ScalarType::Undefined;  // of what is written; Undefined: as the model's files
  std::int64_t shard_bytes = 5'000'000'000;  // of the tensors in a file; a larger tensor is one of its own
};

struct MergeReport {
  std::int64_t tensors = 0;
  std::int64_t changed = 0;      // of these: by the adapter
  std::int64_t files = 0;        // weight files
  std::int64_t bytes = 0;        // theirs
  std::int64_t dequantized = 0;  // of the tensors: stored in NF4 in the base, in full here
  bool untied = false;           // the adapter changes a tied head: it stands beside the embedding now
};

// Sums are fp32 (fp64 where a tensor is), rounded once to the written dtype. A base in NF4 is dequantised:
// what is written is the adapter on the quantised weights, not on those that they were made of. config.json
// is the model's own, but for its dtype, tie_word_embeddings, quantization_config and the adapter's end
// tokens; tokenizer files are copied. The folder appears whole. Errors: those of ModelConfig::FromFolder,
// PeftConfig, WeightFiles, AdapterFiles and ReadNf4; ExitError(kBadData) for latents of method cvf, for a
// merged value that the written dtype cannot hold; ExitError(kCannotCreate) when `output` exists and is not
// to be replaced, or is no model folder; those of file_io.h.
MergeReport MergeAdapter(const MergeSettings& settings);

}  // namespace plural::trainer
