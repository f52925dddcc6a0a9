// JSON files and lines from outside: parsed strictly.
//
// Owns: what counts as acceptable JSON (size, depth, no duplicate key, no byte after the value), typed
// access with errors that name file and key. Does not own: what the keys mean. Thread rule: pure.
//
// Errors: ExitError(kBadData), one line that begins with `where`; ExitError(kMissingInput) when a file
// cannot be read.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace plural {

// `where`: file, or file and line, for errors.
nlohmann::json ParseJson(std::string_view text, const std::string& where);
// A regular file of at most 16 MiB.
nlohmann::json ReadJsonFile(const std::filesystem::path& path);

// A list of token ids: non-negative integers below `vocab_size`, at least one.
std::vector<std::int64_t> TokenIds(const nlohmann::json& object, const char* key, std::int64_t vocab_size,
                                   const std::string& where);

}  // namespace plural
