// The safetensors format: named tensors in one file.
//
// Owns: reading with every rule of the format checked, writing with deterministic bytes. Does not own:
// which tensors a model needs (hf_folder.h). Thread rule: a reader belongs to one thread.
//
// File: 8 bytes little-endian header size, a JSON header
//   {"__metadata__": {string: string}, name: {"dtype", "shape", "data_offsets": [begin, end]}, ...}
// padded with spaces, then the data. Tensors lie one after the other, without hole or overlap, from the
// first byte of the data to the last of the file (format: the safetensors README).
#pragma once

#include <ATen/core/TensorBody.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "data/sha256.h"
#include "dist/flat_parameters.h"
#include "trainer/base/file_io.h"

namespace plural::trainer {

// Accepts less than the reference reader, never more: headers up to 16 MiB, at most 8 dimensions, no
// unknown field, dtypes F64, F32, F16, BF16, I64, I32 and U8.
// Errors: ExitError(kMissingInput) when the file cannot be opened; ExitError(kBadData) naming file and
// tensor for everything else, also for a file that changes while it is read.
class SafetensorsReader {
 public:
  struct Entry {
    at::ScalarType dtype = at::ScalarType::Undefined;
    std::vector<std::int64_t> shape;
    std::int64_t begin = 0, end = 0;  // bytes, from the start of the data
  };

  explicit SafetensorsReader(const std::filesystem::path& path);
  ~SafetensorsReader();
  SafetensorsReader(const SafetensorsReader&) = delete;
  SafetensorsReader& operator=(const SafetensorsReader&) = delete;

  const std::filesystem::path& Path() const { return path_; }
  const std::map<std::string, Entry>& Entries() const { return entries_; }
  const std::map<std::string, std::string>& Metadata() const { return metadata_; }
  // One tensor, in memory of its own (not mapped: a file truncated under a mapping kills the process).
  at::Tensor Read(const std::string& name) const;

 private:
  [[noreturn]] void Fail(const std::string& what) const;
  void CheckLayout(std::int64_t data_size) const;
  void ReadBytes(void* to, std::int64_t size, std::int64_t offset) const;

  std::filesystem::path path_;
  int descriptor_ = -1;
  std::int64_t file_size_ = 0;   // bytes
  std::int64_t data_start_ = 0;  // bytes
  std::int64_t modified_ns_ = 0;
  std::map<std::string, Entry> entries_;
  std::map<std::string, std::string> metadata_;
};

struct WrittenFile {
  std::int64_t size_bytes = 0;
  std::string sha256;  // of the bytes as handed to the kernel
};

// Writes a new file, tensor by tensor, so that only one needs to be in memory; the caller's PendingFolder
// makes it appear. Equal tensors give equal bytes, whatever their order: entries are sorted by element size
// (largest first, so that every tensor is aligned), then by name. Errors: those of OutputFile;
// std::logic_error for a dtype outside the list above, a name given twice, a tensor that is not the one
// announced.
class SafetensorsWriter {
 public:
  struct Item {
    std::string name;
    at::ScalarType dtype = at::ScalarType::Undefined;
    std::vector<std::int64_t> shape;

    std::int64_t Bytes() const;
  };

  SafetensorsWriter(const std::filesystem::path& path, std::vector<Item> items,
                    const std::map<std::string, std::string>& metadata = {{"format", "pt"}});

  // In the order in which Write takes them.
  const std::vector<Item>& Items() const { return items_; }
  void Write(const at::Tensor& tensor);
  // Syncs; every item must have been written.
  WrittenFile Close();

 private:
  void WriteBytes(std::string_view bytes);

  std::vector<Item> items_;
  std::size_t written_ = 0;
  OutputFile file_;
  data::Sha256 hash_;
};

// All of it at once. The same bytes and errors.
WrittenFile WriteSafetensors(const std::filesystem::path& path, std::vector<dist::NamedTensor> tensors,
                             const std::map<std::string, std::string>& metadata = {{"format", "pt"}});

}  // namespace plural::trainer
