#include "trainer/plan/process_memory.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <string>

namespace plural::trainer {

namespace {

// The number in a file of one number; -1 when it is not there or says "max".
std::int64_t NumberIn(const char* path) {
  std::ifstream file(path);
  std::int64_t number = -1;
  return file >> number ? number : -1;
}

std::int64_t FreeOfMachine() {
  std::ifstream file("/proc/meminfo");
  std::string name, unit;
  std::int64_t kib = 0;
  while (file >> name >> kib) {
    std::getline(file, unit);
    if (name == "MemAvailable:") return kib << 10;
  }
  return 0;
}

}  // namespace

std::int64_t AvailableBytes() {
  const std::int64_t limit = NumberIn("/sys/fs/cgroup/memory.max");
  const std::int64_t used = NumberIn("/sys/fs/cgroup/memory.current");
  const std::int64_t of_machine = FreeOfMachine();
  if (limit < 0 || used < 0) return of_machine;
  return std::min(of_machine, std::max<std::int64_t>(limit - used, 0));
}

std::int64_t ResidentBytes() {
  std::ifstream file("/proc/self/statm");
  std::int64_t size_pages = 0, resident_pages = 0;
  if (!(file >> size_pages >> resident_pages)) return 0;
  return resident_pages * sysconf(_SC_PAGESIZE);
}

std::int64_t PeakResidentBytes() {
  struct rusage usage {};
  getrusage(RUSAGE_SELF, &usage);
  return std::int64_t{usage.ru_maxrss} << 10;  // Linux counts in KiB
}

}  // namespace plural::trainer
