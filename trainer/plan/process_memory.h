// This process's memory, as the operating system counts it.
//
// Owns: reading the figures. Does not own: predictions (memory_model.h). Thread rule: any thread.
#pragma once

#include <cstdint>
#include <filesystem>

#include "trainer/plan/control_groups.h"

namespace plural::trainer {

// Bytes in memory now, program and libraries included; 0 where the system does not tell.
std::int64_t ResidentBytes();
// The maximum since the start of the process.
std::int64_t PeakResidentBytes();
// The bytes that this machine and every control group of this process (version 2) can still give, cached
// files that are not in use included; 0 where the system does not tell. Parameters: ControlGroups.
std::int64_t AvailableBytes(const std::filesystem::path& mount = kControlGroups,
                            const std::filesystem::path& own = kOwnControlGroup);

}  // namespace plural::trainer
