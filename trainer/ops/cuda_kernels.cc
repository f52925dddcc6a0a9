#include "trainer/ops/cuda_kernels.h"

#include <ATen/core/Tensor.h>
#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>

#include "trainer/base/error.h"
#include "trainer/base/printable.h"

namespace plural::trainer {
namespace {

#ifdef PLURAL_GPU_KERNELS
KernelModule OpenOwnModule() { return OpenKernelModule(kKernelModule); }
#else
KernelModule OpenOwnModule() {
  return {{},
          "this build has none, since CMake found no nvcc; install that of CUDA 13 (in PATH or in "
          "/usr/local/cuda/bin), then run launch/setup"};
}
#endif

const KernelModule& OwnModule() {
  static const KernelModule module = OpenOwnModule();
  return module;
}

}  // namespace

CudaKernels WithoutKernels(CudaKernels kernels, std::string_view names) {
  while (!names.empty()) {
    const std::string_view name = names.substr(0, names.find(','));
    names.remove_prefix(std::min(name.size() + 1, names.size()));
    if (name == "attention") {
      kernels.tree_attention_serves = nullptr;
    } else if (name == "norm") {
      kernels.rms_norm = nullptr;
      kernels.rms_norm_backward = nullptr;
    } else if (name == "gate") {
      kernels.gate = nullptr;
      kernels.gate_joined = nullptr;
    } else if (name == "rotation") {
      kernels.rotate = nullptr;
      kernels.rotate_joined = nullptr;
    } else if (name == "rows") {
      kernels.row_statistics = nullptr;
      kernels.row_gradient = nullptr;
    } else if (name == "paged") {
      kernels.path_attention = nullptr;
    } else if (name == "sampling") {
      kernels.sample_rows = nullptr;
    } else if (name == "adamw") {
      kernels.adamw = nullptr;
    } else if (name == "dropout") {
      kernels.drop_sites = nullptr;
    } else {
      throw ExitError(ExitCode::kUsage, "PLURAL_WITHOUT_KERNELS names '" + Printable(name) +
                                            "'; it takes attention, norm, gate, rotation, rows, "
                                            "paged, sampling, adamw and dropout, separated by commas");
    }
  }
  return kernels;
}

KernelModule OpenKernelModule(const std::string& file) {
  void* module = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (module == nullptr) {
    const char* reason = dlerror();
    return {{},
            "they do not load: " + std::string(reason == nullptr ? "unknown reason" : reason) +
                "; run launch/setup"};
  }
  CudaKernels found;
  std::string problem;
  const auto find = [&]<class Kernel>(const char* name, Kernel*& kernel) {
    kernel = reinterpret_cast<Kernel*>(dlsym(module, name));
    if (kernel == nullptr) problem = file + " lacks " + name + ": it is of another build; run launch/setup";
  };
  find(kDequantizeNf4Name, found.dequantize_nf4);
  find(kDropoutName, found.dropout);
  find(kDropSitesName, found.drop_sites);
  find(kTreeAttentionServesName, found.tree_attention_serves);
  find(kTreeAttentionName, found.tree_attention);
  find(kTreeAttentionBackwardName, found.tree_attention_backward);
  find(kRmsNormName, found.rms_norm);
  find(kRmsNormBackwardName, found.rms_norm_backward);
  find(kGateName, found.gate);
  find(kRotateName, found.rotate);
  find(kGateJoinedName, found.gate_joined);
  find(kRotateJoinedName, found.rotate_joined);
  find(kRowStatisticsName, found.row_statistics);
  find(kRowGradientName, found.row_gradient);
  find(kPathAttentionName, found.path_attention);
  find(kSampleRowsName, found.sample_rows);
  find(kAdamWName, found.adamw);
  // A module that lacks one kernel is of another build, whose others may take other arguments.
  return problem.empty() ? KernelModule{found, ""} : KernelModule{{}, problem};
}

const CudaKernels& FindCudaKernels() {
  static const CudaKernels kernels = [] {
    const char* without = std::getenv("PLURAL_WITHOUT_KERNELS");
    return WithoutKernels(OwnModule().kernels, without == nullptr ? "" : without);
  }();
  return kernels;
}

const std::string& KernelsProblem() { return OwnModule().problem; }

const CudaKernels* KernelsOf(at::Device device) { return device.is_cuda() ? &FindCudaKernels() : nullptr; }

const CudaKernels& KernelsFor(const at::Tensor& x, const CudaKernels* given) {
  static const CudaKernels none;
  const CudaKernels* const kernels = given != nullptr ? given : KernelsOf(x.device());
  return kernels != nullptr ? *kernels : none;
}

}  // namespace plural::trainer
