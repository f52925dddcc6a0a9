#include "trainer/files/weight_manifest.h"

#include <nlohmann/json.hpp>
#include <system_error>

#include "data/sha256.h"
#include "trainer/base/error.h"
#include "trainer/base/file_io.h"
#include "trainer/base/json_io.h"
#include "trainer/base/printable.h"

namespace plural::trainer {
namespace fs = std::filesystem;
using nlohmann::json;

void WriteWeightManifest(const fs::path& folder, const std::map<std::string, WrittenFile>& files) {
  json entries = json::object();
  for (const auto& [name, file] : files) {
    entries[name] = {{"size_bytes", file.size_bytes}, {"sha256", file.sha256}};
  }
  const json manifest = {{"format", "plural-weights"}, {"format_version", 1}, {"files", entries}};
  WriteFileDurably(folder / kWeightManifest, manifest.dump(2) + "\n");
}

bool VerifyWeights(const fs::path& folder) {
  const fs::path path = folder / kWeightManifest;
  std::error_code error;
  if (!fs::exists(fs::symlink_status(path, error))) return false;
  const auto fail = [](const fs::path& file, const std::string& what) {
    throw ExitError(ExitCode::kBadData, Printable(file.string() + ": " + what));
  };
  const json manifest = ReadJsonFile(path);
  if (!manifest.is_object() || manifest.value("format", json()) != "plural-weights" ||
      manifest.value("format_version", json()) != 1 || !manifest.value("files", json()).is_object()) {
    fail(path,
         "no list of weight files of version 1; restore it, or remove it to leave the weights unchecked");
  }
  for (const auto& [name, entry] : manifest["files"].items()) {
    if (fs::path(name).filename() != name || !entry.is_object() ||
        !entry.value("size_bytes", json()).is_number_unsigned() ||
        !entry.value("sha256", json()).is_string()) {
      fail(path,
           "no size and hash of '" + name + "'; restore it, or remove it to leave the weights unchecked");
    }
    const fs::path file = folder / name;
    const std::uintmax_t size = fs::file_size(file, error);
    if (error) throw ExitError(ExitCode::kMissingInput, file.string() + ": " + error.message());
    if (size != entry["size_bytes"].get<std::uintmax_t>() || data::Sha256OfFile(file) != entry["sha256"]) {
      fail(file, std::string("is not as it was written: size or SHA-256 differ from ") + kWeightManifest +
                     " beside it; restore it, or remove " + kWeightManifest +
                     " if the weights were changed on purpose");
    }
  }
  return true;
}

}  // namespace plural::trainer
