// This process's memory, as the operating system counts it.
//
// Owns: reading the figures. Does not own: predictions (memory_model.h). Thread rule: any thread.
#pragma once

#include <cstdint>
#include <filesystem>

namespace plural::trainer {

// Bytes in memory now, program and libraries included; 0 where the system does not say.
std::int64_t ResidentBytes();
// The most there have been since the start.
std::int64_t PeakResidentBytes();
// What this machine, or the control group that this process is in, could still give, files that it keeps in
// memory only for speed not counted as used; 0 where the system does not say. `control_group`: of version 2.
std::int64_t AvailableBytes(const std::filesystem::path& control_group = "/sys/fs/cgroup");

}  // namespace plural::trainer
