// The cores that the operating system grants this process.
//
// Owns: reading their number. Does not own: dividing it among ranks (commands/model_options.h).
// Thread rule: any thread.
#pragma once

#include <filesystem>

namespace plural::trainer {

// Cores that the scheduler's affinity (taskset, a launcher's binding, Slurm's cpusets) and the quota of the
// control group (version 2, its file cpu.max) leave this process; at least 1.
int UsableCores(const std::filesystem::path& control_group = "/sys/fs/cgroup");

}  // namespace plural::trainer
