// Size and SHA-256 of the weight files of a folder that this program wrote, beside them in weights.json.
//
// Owns: that file, the comparison with what is there. Does not own: what is in weight files (safetensors.h).
// A folder of another program has none and is not compared. Thread rule: one thread.
//
//   {"format": "plural-weights", "format_version": 1,
//    "files": {"adapter_model.safetensors": {"size_bytes": 1234, "sha256": "..."}}}
#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "trainer/files/safetensors.h"

namespace plural::trainer {

inline constexpr const char* kWeightManifest = "weights.json";

// `files`: each weight file of the folder by its name. Errors: those of WriteFileDurably.
void WriteWeightManifest(const std::filesystem::path& folder,
                         const std::map<std::string, WrittenFile>& files);

// Reads every file that the manifest names. False where there is no manifest. Errors: ExitError(kBadData) for
// a file that is not as it was written; ExitError(kMissingInput) for one that is gone.
bool VerifyWeights(const std::filesystem::path& folder);

}  // namespace plural::trainer
