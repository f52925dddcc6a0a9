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

std::int64_t AvailableBytes(const fs::path& mount, const fs::path& own) {
  std::int64_t available = NumberOf("MemAvailable:", "/proc/meminfo") << 10;
  for (const fs::path& group : ControlGroups(mount, own)) {
    const std::int64_t limit = NumberIn(group / "memory.max");
    const std::int64_t used = NumberIn(group / "memory.current");
    if (limit < 0 || used < 0) continue;
    const std::int64_t droppable = NumberOf("inactive_file", group / "memory.stat");
    available = std::min(available, std::max<std::int64_t>(limit - used + droppable, 0));
  }
  return available;
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
