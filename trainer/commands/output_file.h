// Output files of commands: what -o names, and what becomes of what is there already.
//
// Owns: -o and --force, the refusal to overwrite, how inputs are told apart by size and age, the line that
// says what a stop leaves. Does not own: how a file appears whole (base/file_io.h), lines that are kept
// (base/kept_lines.h). Thread rule: main thread.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "dist/collectives.h"
#include "dist/world.h"
#include "trainer/base/kept_lines.h"

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace plural::trainer {

// -o, --output and --force.
CLI::Option* AddOutputOptions(CLI::App& command, std::string& output, bool& force, const std::string& help);

// Before anything is computed. Errors: ExitError(kCannotCreate) when something of that name exists and
// `force` does not allow to replace it, when it is no regular file, or when its folder is missing.
void RequireNewOutput(const std::filesystem::path& output, bool force);

// Path, size and age of a file, or of each file of a folder: hashing all weights would take longer than many
// an answer.
nlohmann::json StampOf(const std::filesystem::path& file_or_folder);

// Runs `work` as OnEveryRank does (dist/agreement.h). Where it fails for what the input holds, `output`, of
// rank 0, is thrown away before: its lines belong to an input that has to change. COLLECTIVE.
void WorkOrDiscard(KeptLines* output, const dist::World& world, dist::Collectives& collectives,
                   const std::function<void()>& work);

// What a start that was stopped leaves, in one line: "stopped on request: 12 of 24 prompts are kept in
// a.jsonl.partial; ...". `total` 0: not known.
std::string KeptLine(std::int64_t kept, std::int64_t total, const std::string& unit,
                     const std::string& output);

}  // namespace plural::trainer
