#include "trainer/plan/usable_cores.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>

namespace plural::trainer {

int UsableCores(const std::filesystem::path& mount, const std::filesystem::path& own) {
  cpu_set_t cores;
  const bool known = sched_getaffinity(0, sizeof(cores), &cores) == 0;
  const int granted = known ? CPU_COUNT(&cores) : static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN));
  int cores_left = std::max(1, granted);
  for (const std::filesystem::path& group : ControlGroups(mount, own)) {
    // "QUOTA PERIOD" in microseconds, or "max PERIOD". The quota is rounded down to whole cores.
    double quota = 0.0, period = 0.0;
    std::ifstream file(group / "cpu.max");
    if (!(file >> quota >> period) || period <= 0.0) continue;
    cores_left = std::clamp(static_cast<int>(quota / period), 1, cores_left);
  }
  return cores_left;
}

}  // namespace plural::trainer
