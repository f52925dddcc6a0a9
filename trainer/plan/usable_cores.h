// The cores that the operating system grants this process.
//
// Owns: reading their number. Does not own: dividing it among ranks (commands/model_options.h).
// Thread rule: any thread.
#pragma once

#include <filesystem>

#include "trainer/plan/control_groups.h"

namespace plural::trainer {

// Cores that the scheduler's affinity (taskset, a launcher's binding, Slurm's cpusets) and the quotas of the
// control groups (version 2, their files cpu.max) leave this process; at least 1. Parameters: ControlGroups.
int UsableCores(const std::filesystem::path& mount = kControlGroups,
                const std::filesystem::path& own = kOwnControlGroup);

}  // namespace plural::trainer
