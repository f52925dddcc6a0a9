// CVF's latents in the folder of an adapter or model; a part of hf_folder.h.
#include <ATen/core/Tensor.h>

#include <map>
#include <stdexcept>
#include <string>

#include "trainer/base/error.h"
#include "trainer/files/hf_folder.h"
#include "trainer/files/safetensors.h"
#include "trainer/files/weight_files.h"

namespace plural::trainer {
namespace fs = std::filesystem;
namespace {

constexpr const char* kStem = "latents";
constexpr const char* kFormat = "plural-latents-1";
constexpr const char* kTable = "latents.table";

}  // namespace

std::int64_t LatentsIn(const fs::path& folder) {
  std::error_code error;
  if (folder.empty() || !fs::exists(folder / kLatentsFile, error)) return 0;
  const SafetensorsReader file(folder / kLatentsFile);
  const auto fail = [&](const std::string& what) -> void {
    throw ExitError(ExitCode::kBadData, "'" + file.Path().string() + "': " + what);
  };
  const auto format = file.Metadata().find("plural");
  if (format == file.Metadata().end() || format->second != kFormat) {
    fail("is not of the format that plural writes for method cvf (metadata plural: " + std::string(kFormat) +
         "); train it again, or remove the file to use the folder without latents");
  }
  const auto table = file.Entries().find(kTable);
  if (table == file.Entries().end() || table->second.shape.size() != 2 || table->second.shape[0] < 1) {
    fail(std::string("tensor '") + kTable + "' must be there with one row per latent");
  }
  const std::int64_t latents = table->second.shape[0];
  const auto stated = file.Metadata().find("latents");
  if (stated == file.Metadata().end() || stated->second != std::to_string(latents)) {
    fail("its table has " + std::to_string(latents) + " rows, its metadata says latents: " +
         (stated == file.Metadata().end() ? "nothing" : stated->second));
  }
  return latents;
}

void LoadLatents(Decoder& model, const fs::path& folder) {
  const Latents* latents = model.LatentHeads();
  if (latents == nullptr) throw std::logic_error("LoadLatents: the model has no latents");
  std::vector<WeightFiles::Wanted> wanted;
  for (const dist::NamedTensor& parameter : latents->Parameters()) {
    wanted.push_back({parameter.name, parameter.tensor});
  }
  WeightFiles(folder, kStem).Fill(wanted, {});
}

WrittenFile WriteLatents(const Latents& latents, const fs::path& folder) {
  return WriteSafetensors(folder / kLatentsFile, latents.Parameters(),
                          {{"format", "pt"},
                           {"plural", kFormat},
                           {"latents", std::to_string(latents.Count())},
                           {"hidden_size", std::to_string(latents.table_KE.size(1))}});
}

}  // namespace plural::trainer
