// Faults on purpose in what is written: what a test makes of the files of one checkpoint.
//
// Owns: the kinds of PLURAL_FAULT=KIND@RANK:STEP that strike files. Does not own: those that strike processes
// and numbers (run/fault.h). Thread rule: pure functions of the environment. Programs that are built without
// tests have none of it.
#pragma once

#include <cstdint>
#include <filesystem>

namespace plural {

enum class WriteFault : std::uint8_t {
  kNone,
  kNoSpace,  // enospc: as on a full disk
  kTorn,     // torn: only half of the file is there, which a power loss leaves of one that was not synced
};

// The fault that is asked for in `file`, one of those of `checkpoints/step-STEP`, which rank 0 writes.
WriteFault FaultOf(const std::filesystem::path& file);

}  // namespace plural
