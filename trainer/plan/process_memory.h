// This process's memory, as the operating system counts it.
//
// Owns: reading the figures. Does not own: predictions (memory_model.h). Thread rule: any thread.
#pragma once

#include <cstdint>
#include <filesystem>

namespace plural::trainer {

// Bytes in memory now, program and libraries included; 0 where the system does not tell.
std::int64_t ResidentBytes();
// The maximum since the start of the process.
std::int64_t PeakResidentBytes();
// The bytes that this machine, or this process's control group, can still give, cached files that
// are not in use included; 0 where the system does not tell. `control_group`: of version 2.
std::int64_t AvailableBytes(const std::filesystem::path& control_group = "/sys/fs/cgroup");

}  // namespace plural::trainer
