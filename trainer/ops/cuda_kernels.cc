#include "trainer/ops/cuda_kernels.h"

#include <ATen/core/Tensor.h>
#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>

#include "trainer/base/error.h"
#include "trainer/base/printable.h"

namespace plural::trainer {
namespace {

template <class Kernel>
void Find(void* module, const char* name, Kernel*& kernel) {
  kernel = reinterpret_cast<Kernel*>(dlsym(module, name));
}

// The module is never closed: kernels of it may be running.
CudaKernels OpenKernels() {
  void* module = dlopen(kKernelModule, RTLD_NOW | RTLD_LOCAL);
  if (module == nullptr) return {};
  CudaKernels kernels;
  Find(module, kDequantizeNf4Name, kernels.dequantize_nf4);
  Find(module, kDropoutName, kernels.dropout);
  Find(module, kDropSitesName, kernels.drop_sites);
  Find(module, kTreeAttentionServesName, kernels.tree_attention_serves);
  Find(module, kTreeAttentionName, kernels.tree_attention);
  Find(module, kTreeAttentionBackwardName, kernels.tree_attention_backward);
  Find(module, kRmsNormName, kernels.rms_norm);
  Find(module, kRmsNormBackwardName, kernels.rms_norm_backward);
  Find(module, kGateName, kernels.gate);
  Find(module, kRotateName, kernels.rotate);
  Find(module, kGateJoinedName, kernels.gate_joined);
  Find(module, kRotateJoinedName, kernels.rotate_joined);
  Find(module, kRowStatisticsName, kernels.row_statistics);
  Find(module, kRowGradientName, kernels.row_gradient);
  Find(module, kPathAttentionName, kernels.path_attention);
  Find(module, kSampleRowsName, kernels.sample_rows);
  Find(module, kAdamWName, kernels.adamw);
  const char* without = std::getenv("PLURAL_WITHOUT_KERNELS");
  return WithoutKernels(kernels, without == nullptr ? "" : without);
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

const CudaKernels& FindCudaKernels() {
  static const CudaKernels kernels = OpenKernels();
  return kernels;
}

const CudaKernels* KernelsOf(at::Device device) { return device.is_cuda() ? &FindCudaKernels() : nullptr; }

const CudaKernels& KernelsFor(const at::Tensor& x, const CudaKernels* given) {
  static const CudaKernels none;
  const CudaKernels* const kernels = given != nullptr ? given : KernelsOf(x.device());
  return kernels != nullptr ? *kernels : none;
}

}  // namespace plural::trainer
