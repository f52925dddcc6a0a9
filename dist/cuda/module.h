// The interface of the module plural_nccl, which is loaded with dlopen.
//
// Owns: the entry points' names and types. Does not own: what they do (nccl_collectives_cuda.cc).
// Both sides are built together, so C++ types and exceptions pass. Thread rule: main thread.
#pragma once

#include <memory>
#include <string>

#include "dist/collectives.h"

namespace plural::dist {

inline constexpr char kNcclModule[] = "libplural_nccl.so";

// Makes the NCCL collectives of `rank` of `size` on CUDA `device`; `control` is their MPI side. COLLECTIVE.
inline constexpr char kMakeNcclName[] = "plural_make_nccl";
using MakeNccl = void(int rank, int size, int device, std::unique_ptr<Collectives> control,
                      std::unique_ptr<Collectives>& result);

// The number of CUDA devices visible to this process; 0 without a driver.
inline constexpr char kCudaDeviceCountName[] = "plural_cuda_device_count";
using CudaDeviceCount = int();

}  // namespace plural::dist
