// The part of the NCCL collectives in every build: loads the module, or reports why it cannot.
#include <dlfcn.h>
#include <torch/version.h>

#include <string>
#include <utility>

#include "dist/collectives.h"
#include "dist/cuda/module.h"
#include "dist/error.h"

#ifdef PLURAL_NCCL
#include <cuda_runtime_api.h>
#include <nccl.h>
#endif

namespace plural::dist {
namespace {

// The command that installs all CUDA libraries: that of the wheel, without --no-deps.
constexpr char kInstall[] = ".venv/bin/python -m pip install torch==" TORCH_VERSION;

#ifdef PLURAL_NCCL
// The module, or null and the reason. Never closed: libtorch's GPU part cannot be unloaded.
void* OpenModule(std::string& problem) {
  // RTLD_GLOBAL: libraries loaded later (cuDNN's parts, for one) look their symbols up in the first ones.
  void* module = dlopen(kNcclModule, RTLD_NOW | RTLD_GLOBAL);
  if (module == nullptr) {
    const char* reason = dlerror();
    problem =
        "the CUDA libraries do not load: " + std::string(reason == nullptr ? "unknown reason" : reason) +
        "; install them: " + kInstall;
  }
  return module;
}
#else
void* OpenModule(std::string& problem) {
  problem = "this build has no NCCL; use model.device=cpu, or install the CUDA libraries (" +
            std::string(kInstall) + ") and build again";
  return nullptr;
}
#endif

template <typename Function>
Function* Entry(const char* name) {
  std::string problem;
  void* module = OpenModule(problem);
  if (module == nullptr) throw ResourceError(problem);
  void* entry = dlsym(module, name);
  if (entry == nullptr) {
    throw ResourceError(std::string(kNcclModule) + " lacks " + name +
                        ": it is of another build; build again");
  }
  return reinterpret_cast<Function*>(entry);
}

}  // namespace

bool NcclCompiled() {
#ifdef PLURAL_NCCL
  return true;
#else
  return false;
#endif
}

std::string NcclVersion() {
#ifdef PLURAL_NCCL
  return std::to_string(NCCL_MAJOR) + "." + std::to_string(NCCL_MINOR) + "." + std::to_string(NCCL_PATCH);
#else
  return "not compiled";
#endif
}

int CudaRuntimeVersion() {
#ifdef PLURAL_NCCL
  return CUDART_VERSION;
#else
  return 0;
#endif
}

std::string NcclProblem() {
  std::string problem;
  OpenModule(problem);
  return problem;
}

int LocalCudaDevice(const World& world) {
  const int devices = Entry<CudaDeviceCount>(kCudaDeviceCountName)();
  if (devices == 0) {
    throw ResourceError(world.Host() + " shows no CUDA device to rank " + std::to_string(world.Rank()) +
                        "; check the driver (nvidia-smi) and CUDA_VISIBLE_DEVICES, or use model.device=cpu");
  }
  if (devices == 1) return 0;  // a scheduler may bind one GPU per task; MakeNccl finds shared ones
  if (world.LocalRank() >= devices) {
    throw ResourceError(world.Host() + " runs " + std::to_string(world.LocalSize()) + " ranks but has " +
                        std::to_string(devices) + " CUDA devices; start at most one rank a GPU");
  }
  return world.LocalRank();
}

std::unique_ptr<Collectives> MakeNcclCollectives(const World& world, int device) {
  MakeNccl* make = Entry<MakeNccl>(kMakeNcclName);
  std::unique_ptr<Collectives> result;
  make(world.Rank(), world.Size(), device, MakeMpiCollectives(world), result);
  return result;
}

}  // namespace plural::dist
