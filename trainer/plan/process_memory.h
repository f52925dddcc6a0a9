// This process's memory, as the operating system counts it.
//
// Owns: reading the figures. Does not own: predictions (memory_model.h). Thread rule: any thread.
#pragma once

#include <cstdint>

namespace plural::trainer {

// Bytes in memory now, program and libraries included; 0 where the system does not say.
std::int64_t ResidentBytes();
// The most there have been since the start.
std::int64_t PeakResidentBytes();
// What this machine, or the control group that this process is in, could still give.
std::int64_t AvailableBytes();

}  // namespace plural::trainer
