#include "trainer/files/weight_files.h"

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/isfinite.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "trainer/base/error.h"
#include "trainer/base/file_io.h"
#include "trainer/base/json_io.h"
#include "trainer/base/printable.h"
#include "trainer/files/hub_cache.h"

namespace plural::trainer {
namespace fs = std::filesystem;
using nlohmann::json;
namespace {

constexpr std::size_t kMaxListed = 3;

[[noreturn]] void Fail(const fs::path& path, const std::string& what) {
  throw ExitError(ExitCode::kBadData, Printable("'" + path.string() + "': " + what));
}

// A plain file name: what cannot leave the folder.
bool IsShardName(const std::string& name) {
  const auto plain = [](unsigned char c) {
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '.' ||
           c == '_' || c == '-';
  };
  return name.ends_with(".safetensors") && name.front() != '.' &&
         std::all_of(name.begin(), name.end(), plain);
}

fs::path IndexPath(const fs::path& folder, const std::string& stem) {
  return folder / (stem + ".safetensors.index.json");
}

// Tensor name -> shard name. The index's own total_size is not compared: writers disagree on whether it
// counts files or tensors, published folders carry stale ones, every shard is checked tensor by tensor.
std::map<std::string, std::string> ReadIndex(const fs::path& path) {
  const json index = ReadJsonFile(path);
  const auto map = index.is_object() ? index.find("weight_map") : index.end();
  if (!index.is_object() || map == index.end() || !map->is_object() || map->empty()) {
    Fail(path, "'weight_map' must be an object that gives every tensor its file");
  }
  std::map<std::string, std::string> files;
  for (const auto& [tensor, file] : map->items()) {
    if (!file.is_string() || !IsShardName(file.get<std::string>())) {
      Fail(path, "tensor '" + tensor + "' is said to be in " + file.dump() +
                     "; a plain name (letters, digits, '.', '_', '-') that ends in .safetensors is allowed");
    }
    files[tensor] = file.get<std::string>();
  }
  return files;
}

std::string Shape(at::IntArrayRef sizes) {
  std::string text = "[";
  for (std::size_t i = 0; i < sizes.size(); ++i) text += (i ? ", " : "") + std::to_string(sizes[i]);
  return text + "]";
}

std::string Listed(const std::vector<std::string>& items) {
  std::string text;
  for (std::size_t i = 0; i < std::min(items.size(), kMaxListed); ++i) text += (i ? ", " : "") + items[i];
  if (items.size() > kMaxListed) text += ", and " + std::to_string(items.size() - kMaxListed) + " more";
  return text;
}

}  // namespace

std::vector<std::string> WeightFileNames(const fs::path& folder, const std::string& stem) {
  std::error_code error;
  if (!fs::is_directory(folder, error)) {
    throw ExitError(ExitCode::kMissingInput, "'" + folder.string() + "' is not a folder");
  }
  if (fs::exists(folder / (stem + ".safetensors"), error)) return {stem + ".safetensors"};
  if (!fs::exists(IndexPath(folder, stem), error)) {
    std::string what = "'" + folder.string() + "' has neither " + stem + ".safetensors nor " + stem +
                       ".safetensors.index.json";
    for (const auto& entry : fs::directory_iterator(folder, error)) {
      const std::string extension = entry.path().extension().string();
      if (extension != ".bin" && extension != ".pt" && extension != ".pth") continue;
      what += "; pickle formats such as '" + entry.path().filename().string() +
              "' are not accepted, save the weights as safetensors";
      throw ExitError(ExitCode::kMissingInput, what);
    }
    throw ExitError(ExitCode::kMissingInput, what + DownloadHint(folder));
  }
  std::set<std::string> names;
  for (const auto& [tensor, file] : ReadIndex(IndexPath(folder, stem))) names.insert(file);
  for (const std::string& name : names) {
    if (fs::exists(folder / name, error)) continue;
    throw ExitError(ExitCode::kMissingInput, "'" + folder.string() + "' lacks " + name + ", which " + stem +
                                                 ".safetensors.index.json names" + DownloadHint(folder));
  }
  return {names.begin(), names.end()};
}

std::vector<WeightShard> CutIntoShards(const std::string& stem, std::vector<SafetensorsWriter::Item> items,
                                       std::int64_t shard_bytes) {
  std::vector<WeightShard> shards(1);
  std::int64_t filled = 0;
  for (SafetensorsWriter::Item& item : items) {
    if (filled > 0 && filled + item.Bytes() > shard_bytes) {
      shards.emplace_back();
      filled = 0;
    }
    filled += item.Bytes();
    shards.back().items.push_back(std::move(item));
  }
  for (std::size_t s = 0; s < shards.size(); ++s) {
    std::array<char, 32> number{};
    std::snprintf(number.data(), number.size(), "-%05zu-of-%05zu", s + 1, shards.size());
    shards[s].file_name = stem + (shards.size() > 1 ? number.data() : "") + ".safetensors";
  }
  return shards;
}

void WriteIndex(const fs::path& folder, const std::string& stem, const std::vector<WeightShard>& shards) {
  if (shards.size() == 1) return;
  std::map<std::string, std::string> files;
  std::int64_t bytes = 0;
  for (const WeightShard& shard : shards) {
    for (const SafetensorsWriter::Item& item : shard.items) {
      files[item.name] = shard.file_name;
      bytes += item.Bytes();
    }
  }
  const json index = {{"metadata", {{"total_size", bytes}}}, {"weight_map", files}};
  WriteFileDurably(IndexPath(folder, stem), index.dump(2) + "\n");
}

WeightFiles::WeightFiles(const fs::path& folder, const std::string& stem)
    : folder_(folder),
      misfit_(stem == "model" ? "the weights do not fit the configuration"
                              : "the adapter does not fit this model; give the base that it was trained on") {
  const std::vector<std::string> names = WeightFileNames(folder, stem);
  const bool single = names.size() == 1 && names.front() == stem + ".safetensors";
  const fs::path index_path = IndexPath(folder, stem);
  const auto index = single ? std::map<std::string, std::string>{} : ReadIndex(index_path);
  for (const std::string& name : names) {
    const SafetensorsReader& reader =
        *readers_.emplace_back(std::make_unique<SafetensorsReader>(folder / name));
    for (const auto& [tensor, entry] : reader.Entries()) {
      const auto listed = index.find(tensor);
      if (!single && listed == index.end())
        Fail(index_path, "does not list tensor '" + tensor + "' of " + name);
      if (!single && listed->second != name) {
        Fail(index_path,
             "puts tensor '" + tensor + "' into " + listed->second + ", it is in " + name + " too");
      }
      tensors_[tensor] = &reader;
    }
  }
  for (const auto& [tensor, file] : index) {
    if (!tensors_.contains(tensor))
      Fail(index_path, "puts tensor '" + tensor + "' into " + file + ", it is not there");
  }
}

void WeightFiles::Check(const std::vector<Wanted>& wanted, const std::vector<std::string>& others) const {
  std::set<std::string> known(others.begin(), others.end());
  std::vector<std::string> missing, unexpected, mismatched;
  for (const Wanted& item : wanted) {
    known.insert(item.name);
    const auto found = tensors_.find(item.name);
    if (found == tensors_.end()) {
      missing.push_back(item.name);
      continue;
    }
    const SafetensorsReader::Entry& entry = found->second->Entries().at(item.name);
    if (item.tensor.sizes() != at::IntArrayRef(entry.shape)) {
      mismatched.push_back(item.name + " (file " + Shape(entry.shape) + ", model " +
                           Shape(item.tensor.sizes()) + ")");
    } else if (!at::isFloatingType(entry.dtype)) {
      mismatched.push_back(item.name + " (dtype " + at::toString(entry.dtype) +
                           ", a floating one is needed)");
    }
  }
  for (const auto& [name, reader] : tensors_) {
    if (!known.contains(name)) unexpected.push_back(name);
  }
  if (!missing.empty() || !unexpected.empty() || !mismatched.empty()) {
    std::string what = misfit_;
    const auto add = [&what](const char* kind, const std::vector<std::string>& items) {
      if (!items.empty()) what += "; " + std::to_string(items.size()) + " " + kind + ": " + Listed(items);
    };
    add("missing", missing);
    add("unexpected", unexpected);
    add("mismatched", mismatched);
    Fail(folder_, what);
  }
}

at::Tensor WeightFiles::ReadFinite(const std::string& name, at::ScalarType dtype) const {
  at::Tensor tensor = Read(name);
  if (dtype != at::ScalarType::Undefined) tensor = tensor.to(dtype);
  RequireFinite(name, tensor);
  return tensor;
}

void WeightFiles::Fill(const std::vector<Wanted>& wanted, const std::vector<std::string>& others) const {
  Check(wanted, others);
  for (const Wanted& item : wanted) Fill(item);
}

void WeightFiles::Fill(const Wanted& wanted) const {
  const at::NoGradGuard no_grad;
  wanted.tensor.copy_(Read(wanted.name));
  // After the conversion, so that a value too large for the model's dtype is found as well.
  RequireFinite(wanted.name, wanted.tensor);
}

void WeightFiles::RequireFinite(const std::string& name, const at::Tensor& tensor) const {
  // In pieces: the check's own tensors are as large as what it checks.
  constexpr std::int64_t kPiece = std::int64_t{1} << 20;
  const at::Tensor flat = tensor.detach().view(-1);
  bool finite = true;
  for (std::int64_t begin = 0; begin < flat.numel() && finite; begin += kPiece) {
    finite = at::isfinite(flat.narrow(0, begin, std::min(kPiece, flat.numel() - begin))).all().item<bool>();
  }
  if (finite) return;
  Fail(tensors_.at(name)->Path(), "tensor '" + name + "' holds NaN or infinite values (read as " +
                                      at::toString(tensor.scalar_type()) + ")");
}

}  // namespace plural::trainer
