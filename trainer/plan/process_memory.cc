#include "trainer/plan/process_memory.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <string>

namespace plural::trainer {
namespace fs = std::filesystem;
namespace {

// The number in a file of one number; -1 when it is not there or is "max".
std::int64_t NumberIn(const fs::path& path) {
  std::ifstream file(path);
  std::int64_t number = -1;
  return file >> number ? number : -1;
}

// The number after `name` in a file of lines with a name and a number; 0 when it is not there.
std::int64_t NumberOf(const std::string& name, const fs::path& path) {
  std::ifstream file(path);
  std::string found, rest;
  for (std::int64_t number = 0; file >> found >> number; std::getline(file, rest)) {
    if (found == name) return number;
  }
  return 0;
}

}  // namespace

std::int64_t AvailableBytes(const fs::path& control_group) {
  const std::int64_t limit = NumberIn(control_group / "memory.max");
  const std::int64_t used = NumberIn(control_group / "memory.current");
  const std::int64_t of_machine = NumberOf("MemAvailable:", "/proc/meminfo") << 10;
  if (limit < 0 || used < 0) return of_machine;
  const std::int64_t droppable = NumberOf("inactive_file", control_group / "memory.stat");
  return std::min(of_machine, std::max<std::int64_t>(limit - used + droppable, 0));
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
