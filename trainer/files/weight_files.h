// The weight files of a folder, seen as one set of named tensors.
//
// Owns: finding the files (one file, or shards with an index), cutting tensors into shards, the rules of the
// index, matching names and shapes with what a model needs, filling its tensors. Does not own: one file's
// format (safetensors.h), what the names mean (hf_folder.h, hf_adapter.cc). Thread rule: one thread.
#pragma once

#include <ATen/core/TensorBody.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "trainer/files/safetensors.h"

namespace plural::trainer {

// Names of the weight files of `folder`, sorted: <stem>.safetensors, or the shards that
// <stem>.safetensors.index.json lists. Shard names are plain names of the folder, never paths.
// Errors: ExitError(kMissingInput) when there are none, kBadData for a bad index.
std::vector<std::string> WeightFileNames(const std::filesystem::path& folder, const std::string& stem);

// One file of a set that is written.
struct WeightShard {
  std::string file_name;
  std::vector<SafetensorsWriter::Item> items;
};
// In the order of the items, each file filled up to `shard_bytes`; a larger tensor has a file of its own.
std::vector<WeightShard> CutIntoShards(const std::string& stem, std::vector<SafetensorsWriter::Item> items,
                                       std::int64_t shard_bytes);
// The index of several files; of one there is none. Errors: those of WriteFileDurably.
void WriteIndex(const std::filesystem::path& folder, const std::string& stem,
                const std::vector<WeightShard>& shards);

class WeightFiles {
 public:
  // Opens all files and reads their headers. Errors: as WeightFileNames and SafetensorsReader; kBadData when
  // a shard holds other tensors than the index says.
  WeightFiles(const std::filesystem::path& folder, const std::string& stem);

  const std::filesystem::path& Folder() const { return folder_; }
  // Which file holds which tensor.
  const std::map<std::string, const SafetensorsReader*>& Tensors() const { return tensors_; }
  at::Tensor Read(const std::string& name) const { return tensors_.at(name)->Read(name); }
  // In `dtype`, or as stored. Errors: ExitError(kBadData) for a value that is NaN or infinite.
  at::Tensor ReadFinite(const std::string& name, at::ScalarType dtype = at::ScalarType::Undefined) const;

  struct Wanted {
    std::string name;   // as in the files
    at::Tensor tensor;  // filled in place, whatever its dtype and device
  };
  // Errors: one ExitError(kBadData) that lists missing tensors, unexpected ones (those neither wanted nor in
  // `others`) and mismatched shapes or dtypes, 3 of each and the count. Reads headers only.
  void Check(const std::vector<Wanted>& wanted, const std::vector<std::string>& others) const;
  // Fills one tensor that has been checked. Errors: ExitError(kBadData) for a value that is NaN or infinite,
  // in the file or in the dtype of the model.
  void Fill(const Wanted& wanted) const;
  // Checks, then fills all of `wanted`. Errors: also ExitError(kBadData) for a value that is NaN or infinite,
  // in the file or in the dtype of the model.
  void Fill(const std::vector<Wanted>& wanted, const std::vector<std::string>& others) const;

 private:
  void RequireFinite(const std::string& name, const at::Tensor& tensor) const;

  std::filesystem::path folder_;
  std::string misfit_;  // what a refusal begins with
  std::vector<std::unique_ptr<SafetensorsReader>> readers_;
  std::map<std::string, const SafetensorsReader*> tensors_;
};

}  // namespace plural::trainer
