#include "dist/pulse.h"

#include <sys/mman.h>

#include <new>

namespace plural::dist {

const char* PhaseName(Phase phase) {
  switch (phase) {
    case Phase::kStart:
      return "start";
    case Phase::kWork:
      return "work";
    case Phase::kLoad:
      return "loading";
    case Phase::kData:
      return "reading data";
    case Phase::kCompute:
      return "forward and backward";
    case Phase::kSum:
      return "sum over ranks";
    case Phase::kCheckpoint:
      return "checkpoint";
    case Phase::kValidation:
      return "validation";
    case Phase::kEnd:
      return "end";
  }
  return "unknown";
}

std::shared_ptr<Pulse> SharedPulse() {
  void* memory = mmap(nullptr, sizeof(Pulse), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  return {new (memory) Pulse, [](Pulse* pulse) { munmap(pulse, sizeof(Pulse)); }};
}

}  // namespace plural::dist
