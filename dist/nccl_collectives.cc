// The part of the NCCL collectives in every build: loads the module, or reports why it cannot.
#include <ATen/detail/CUDAHooksInterface.h>
#include <dlfcn.h>
#include <torch/version.h>

#include <string>
#include <utility>
#include <vector>

#include "dist/agreement.h"
#include "dist/collectives.h"
#include "dist/cuda/module.h"
#include "dist/cuda/own_gpu.h"
#include "dist/error.h"
#include "dist/patience.h"

#ifdef PLURAL_NCCL
#include <cuda_runtime_api.h>
#include <nccl.h>
#endif

namespace plural::dist {
namespace {

// The command that installs the CUDA libraries and builds with them.
constexpr char kInstall[] = "launch/setup --gpu";

template <typename Function>
Function* FindEntry(void* module, const char* name, std::string& problem) {
  void* entry = dlsym(module, name);
  if (entry == nullptr) {
    problem = std::string(kNcclModule) + " lacks " + name + ": it is of another build; build again";
  }
  return reinterpret_cast<Function*>(entry);
}

#ifdef PLURAL_NCCL
std::string VersionText(int code) {  // of NCCL_VERSION_CODE, since NCCL 2.9
  return std::to_string(code / 10000) + "." + std::to_string(code % 10000 / 100) + "." +
         std::to_string(code % 100);
}

// The version of the loaded library; 0 and the problem where it cannot serve what was compiled.
int CheckedVersion(void* module, std::string& problem) {
  auto* loaded = FindEntry<LoadedNcclVersion>(module, kNcclVersionName, problem);
  const int version = loaded == nullptr ? 0 : loaded();
  if (loaded != nullptr && version < NCCL_VERSION_CODE) {
    problem =
        "NCCL " + VersionText(version) + " was loaded, the program is built for " +
        VersionText(NCCL_VERSION_CODE) +
        ": take other NCCL libraries out of LD_LIBRARY_PATH and LD_PRELOAD, or install its own: " + kInstall;
  }
  return version;
}

// The module, or null and the reason. Never closed: libtorch's GPU part cannot be unloaded.
void* OpenModule(std::string& problem) {
  // RTLD_GLOBAL: libraries loaded later (cuDNN's parts, for one) look their symbols up in the first ones.
  void* module = dlopen(kNcclModule, RTLD_NOW | RTLD_GLOBAL);
  if (module == nullptr) {
    const char* reason = dlerror();
    problem =
        "the CUDA libraries do not load: " + std::string(reason == nullptr ? "unknown reason" : reason) +
        "; install them: " + kInstall;
    return nullptr;
  }
  if (!at::detail::getCUDAHooks().hasCUDART()) {
    problem =
        "libtorch looked for its GPU part before that was loaded, and uses no GPU in this process: "
        "the program must open " +
        std::string(kNcclModule) + " before anything is differentiated; report this";
    return nullptr;
  }
  CheckedVersion(module, problem);
  return problem.empty() ? module : nullptr;
}
#else
void* OpenModule(std::string& problem) {
  problem =
      "this build has no NCCL; compute on the CPU (model.device=cpu, or --device cpu), or install the CUDA "
      "libraries and build again: " +
      std::string(kInstall);
  return nullptr;
}
#endif

template <typename Function>
Function* Entry(const char* name) {
  std::string problem;
  void* module = OpenModule(problem);
  Function* entry = module == nullptr ? nullptr : FindEntry<Function>(module, name, problem);
  if (entry == nullptr) throw ResourceError(problem);
  return entry;
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
  return VersionText(NCCL_VERSION_CODE);
#else
  return "not compiled";
#endif
}

std::string LoadedNcclVersionText() {
#ifdef PLURAL_NCCL
  std::string problem;
  if (void* module = dlopen(kNcclModule, RTLD_NOW | RTLD_GLOBAL); module != nullptr) {
    return VersionText(CheckedVersion(module, problem));
  }
#endif
  return "";
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
                        "; check the driver (nvidia-smi) and CUDA_VISIBLE_DEVICES, or compute on the CPU "
                        "(model.device=cpu, or --device cpu)");
  }
  if (devices == 1) return 0;  // a scheduler may bind one GPU per task; MakeNccl finds shared ones
  if (world.LocalRank() >= devices) {
    throw ResourceError(world.Host() + " runs " + std::to_string(world.LocalSize()) + " ranks but has " +
                        std::to_string(devices) + " CUDA devices; start at most one rank a GPU");
  }
  return world.LocalRank();
}

int TakeCudaDevice(const World& world, Collectives& collectives) {
  std::string uuid;
  const int device = MakeOnEveryRank(world, collectives, [&] {
    const int own = LocalCudaDevice(world);
    Entry<UseCudaDevice>(kUseCudaDeviceName)(own, uuid);
    return own;
  });
  const std::vector<std::string> all = collectives.AllGather(uuid);
  OnEveryRank(world, collectives, [&] { RequireOwnGpu(all, world.Rank()); });
  return device;
}

std::unique_ptr<Collectives> MakeNcclCollectives(const World& world, int device, double wait_seconds) {
  MakeNccl* make = Entry<MakeNccl>(kMakeNcclName);
  std::unique_ptr<Collectives> control = MakeMpiCollectives(world);
  const Patience patience{wait_seconds, PeersOf(control->AllGather(world.Host()), world.Rank())};
  std::unique_ptr<Collectives> result;
  make(world.Rank(), world.Size(), device, patience, std::move(control), result);
  return result;
}

}  // namespace plural::dist
