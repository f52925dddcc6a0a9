#include "trainer/plan/usable_cores.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>

namespace plural::trainer {

int UsableCores(const std::filesystem::path& control_group) {
  cpu_set_t cores;
  const bool known = sched_getaffinity(0, sizeof(cores), &cores) == 0;
  const int granted = known ? CPU_COUNT(&cores) : static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN));
  // "QUOTA PERIOD" in microseconds, or "max PERIOD". The quota is rounded down to whole cores.
  double quota = 0.0, period = 0.0;
  std::ifstream file(control_group / "cpu.max");
  if (!(file >> quota >> period) || period <= 0.0) return std::max(1, granted);
  return std::clamp(static_cast<int>(quota / period), 1, std::max(1, granted));
}

}  // namespace plural::trainer
