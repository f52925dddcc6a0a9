// The GPU driver of this machine, queried without any CUDA library.
//
// Owns: nothing; the driver's library stays loaded once it was found. Does not own: the use of GPUs
// (collectives.h). Thread rule: any thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace plural::dist {

struct GpuDriver {
  struct Device {
    std::string name;
    std::uint64_t memory_bytes = 0;
  };
  int cuda_version = 0;         // newest CUDA it supports, as 1000 major + 10 minor; 0: no driver
  std::vector<Device> devices;  // those visible to this process
};

GpuDriver ProbeGpuDriver();

}  // namespace plural::dist
