// The control groups that this process is in, whose limits all hold for it.
//
// Owns: where they are (version 2: one tree of folders). Does not own: which files are read there. Thread
// rule: free of state.
#pragma once

#include <filesystem>
#include <vector>

namespace plural::trainer {

inline constexpr const char* kControlGroups = "/sys/fs/cgroup";  // where the tree is mounted
inline constexpr const char* kOwnControlGroup = "/proc/self/cgroup";

// The folder of the process's own group and of every group around it, from the inside out; the last one is
// `mount`. A job's step of Slurm or a unit of systemd is some folders deep, a container sees `mount` as its
// own. `own`: a file with the line "0::/PATH"; without it, `mount` alone.
std::vector<std::filesystem::path> ControlGroups(const std::filesystem::path& mount = kControlGroups,
                                                 const std::filesystem::path& own = kOwnControlGroup);

}  // namespace plural::trainer
