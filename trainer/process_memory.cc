#include "trainer/process_memory.h"

#include <sys/resource.h>
#include <unistd.h>

#include <fstream>

namespace plural::trainer {

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
