// The interface of the module plural_nccl, which is loaded with dlopen.
//
// Owns: the entry points' names and types. Does not own: what they do (nccl_collectives_cuda.cc).
// Both sides are built together, so C++ types and exceptions pass. Thread rule: main thread.
//
// Open the module before anything is differentiated, also on the CPU: libtorch asks once, at the first
// backward, whether there is a GPU part, and keeps a stub for the life of the process if there is none yet.
#pragma once

#include <memory>
#include <string>

#include "dist/collectives.h"
#include "dist/patience.h"

namespace plural::dist {

inline constexpr char kNcclModule[] = "libplural_nccl.so";

// Makes the NCCL collectives of `rank` of `size` on CUDA `device`; `control` is their MPI side. COLLECTIVE.
inline constexpr char kMakeNcclName[] = "plural_make_nccl";
using MakeNccl = void(int rank, int size, int device, const Patience& patience,
                      std::unique_ptr<Collectives> control, std::unique_ptr<Collectives>& result);

// The number of CUDA devices visible to this process; 0 without a driver.
inline constexpr char kCudaDeviceCountName[] = "plural_cuda_device_count";
using CudaDeviceCount = int();

// Makes `device` the calling thread's current one. Returns its GPU's UUID, which does not depend on its
// number in this process. Errors: ResourceError where it cannot be used.
inline constexpr char kUseCudaDeviceName[] = "plural_use_cuda_device";
using UseCudaDevice = void(int device, std::string& uuid);

// The version of the NCCL library in this process, as NCCL_VERSION_CODE; 0 where it does not say.
inline constexpr char kNcclVersionName[] = "plural_nccl_version";
using LoadedNcclVersion = int();

}  // namespace plural::dist
