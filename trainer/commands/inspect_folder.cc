#include <ATen/core/TensorBody.h>

#include <algorithm>
#include <filesystem>
#include <iomanip>
#include <iostream>
#include <nlohmann/json.hpp>
#include <set>
#include <string>

#include "data/sha256.h"
#include "trainer/base/error.h"
#include "trainer/base/json_io.h"
#include "trainer/base/printable.h"
#include "trainer/commands/inspect.h"
#include "trainer/commands/show_group.h"
#include "trainer/files/hf_folder.h"
#include "trainer/files/safetensors.h"
#include "trainer/files/safetensors_header.h"

namespace plural::trainer {
namespace {

namespace fs = std::filesystem;

std::string Text(const nlohmann::json& value) {
  return Printable(value.is_string() ? value.get<std::string>()
                                     : value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
}

// What is wrong with `file`, "" when size and hash are those of its manifest entry.
std::string Difference(const fs::path& file, const nlohmann::json& entry) {
  if (!entry.is_object() || !entry.contains("size_bytes") || !entry.contains("sha256")) {
    return "has no size_bytes and sha256 in the manifest";
  }
  std::error_code error;
  const std::uintmax_t size = fs::file_size(file, error);
  if (error) return "is missing";
  if (entry["size_bytes"] != size) {
    return "has " + std::to_string(size) + " bytes, the manifest says " + Text(entry["size_bytes"]);
  }
  const std::string sha256 = data::Sha256OfFile(file);
  if (entry["sha256"] != sha256) {
    return "has SHA-256 " + sha256 + ", the manifest says " + Text(entry["sha256"]);
  }
  return "";
}

void PrintTensors(const fs::path& file) {
  const SafetensorsReader reader(file);
  std::cout << "\n" << file.filename().string() << ": " << reader.Entries().size() << " tensors\n";
  for (const auto& [name, entry] : reader.Entries()) {
    std::cout << "  " << std::left << std::setw(5) << SafetensorsDType(entry.dtype) << std::right << "[";
    for (std::size_t i = 0; i < entry.shape.size(); ++i) std::cout << (i > 0 ? ", " : "") << entry.shape[i];
    std::cout << "]  " << Printable(name) << "\n";
  }
}

void InspectCheckpoint(const fs::path& folder) {
  const fs::path path = folder / "manifest.json";
  const nlohmann::json manifest = ReadJsonFile(path);
  if (!manifest.is_object() || !manifest.contains("files") || !manifest["files"].is_object()) {
    throw ExitError(ExitCode::kBadData,
                    path.string() + ": has no object 'files'; not a checkpoint's manifest");
  }
  std::cout << folder.string() << "\n";
  if (manifest.contains("step")) std::cout << "  step " << Text(manifest["step"]) << "\n";
  std::string first_difference;
  std::set<fs::path> tensor_files;
  for (const auto& [name, entry] : manifest["files"].items()) {
    const fs::path file = folder / name;
    // A name is a name: nothing outside the folder is opened.
    if (name.empty() || name == "." || name == ".." || name.find('/') != std::string::npos) {
      throw ExitError(ExitCode::kBadData, path.string() + ": 'files' names '" + Printable(name) +
                                              "', file names without a folder are allowed");
    }
    const std::string difference = Difference(file, entry);
    std::cout << "  " << std::left << std::setw(28) << Printable(name) << std::right;
    if (difference.empty()) {
      std::cout << std::setw(14) << Text(entry["size_bytes"]) << " bytes  ok  " << Text(entry["sha256"])
                << "\n";
      if (file.extension() == ".safetensors") tensor_files.insert(file);
    } else {
      std::cout << "BAD: " << difference << "\n";
      if (first_difference.empty()) first_difference = file.string() + ": " + difference;
    }
  }
  for (const fs::path& file : tensor_files) PrintTensors(file);
  if (!first_difference.empty()) {
    throw ExitError(ExitCode::kBadData, first_difference + "; use an older checkpoint");
  }
}

void InspectAdapter(const fs::path& folder) {
  const nlohmann::json config = ReadJsonFile(folder / "adapter_config.json");
  std::cout << folder.string() << "\n";
  for (const char* key :
       {"peft_type", "base_model_name_or_path", "r", "lora_alpha", "lora_dropout", "target_modules"}) {
    if (config.is_object() && config.contains(key))
      std::cout << "  " << key << ": " << Text(config[key]) << "\n";
  }
  for (const char* key : {"use_rslora", "rank_pattern", "alpha_pattern", "modules_to_save"}) {
    const bool is_on =
        config.is_object() && config.contains(key) && config[key] != false && !config[key].empty();
    if (is_on) std::cout << "  " << key << ": " << Text(config[key]) << "\n";
  }
  const fs::path weights = folder / "adapter_model.safetensors";
  if (!fs::exists(weights)) {
    throw ExitError(ExitCode::kMissingInput, weights.string() + ": no such file; an adapter needs it");
  }
  std::cout << "  " << weights.filename().string() << "  " << fs::file_size(weights) << " bytes  sha256 "
            << data::Sha256OfFile(weights) << "\n";
  const std::int64_t latents = LatentsIn(folder);
  if (latents > 0) {
    std::cout << "  latents: " << latents << " (method cvf), in latents.safetensors\n";
  }
  PrintTensors(weights);
  if (latents > 0) PrintTensors(folder / "latents.safetensors");
}

// The adapter of a run, or its newest checkpoint; nothing where `folder` is no run or has neither.
fs::path PartOfRun(const fs::path& folder) {
  if (!fs::exists(folder / "recipe.yaml")) return {};
  if (fs::exists(folder / "adapter" / "adapter_config.json")) return folder / "adapter";
  fs::path newest;
  if (!fs::is_directory(folder / "checkpoints")) return newest;
  for (const auto& entry : fs::directory_iterator(folder / "checkpoints")) {
    if (fs::exists(entry.path() / "manifest.json")) newest = std::max(newest, entry.path());
  }
  return newest;
}

}  // namespace

void InspectFolder(const fs::path& folder) {
  if (fs::exists(folder / "manifest.json")) return InspectCheckpoint(folder);
  if (fs::exists(folder / "adapter_config.json")) return InspectAdapter(folder);
  if (const fs::path part = PartOfRun(folder); !part.empty()) {
    throw ExitError(ExitCode::kMissingInput,
                    folder.string() + ": is a run; name what to inspect of it, such as " + part.string());
  }
  throw ExitError(ExitCode::kMissingInput,
                  folder.string() +
                      ": has neither manifest.json (checkpoint) nor adapter_config.json (adapter); name a "
                      "corpus file or such a folder");
}

}  // namespace plural::trainer
