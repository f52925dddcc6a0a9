#include "trainer/ops/cuda_kernels.h"

#include <dlfcn.h>

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
  Find(module, kTreeAttentionServesName, kernels.tree_attention_serves);
  Find(module, kTreeAttentionName, kernels.tree_attention);
  Find(module, kTreeAttentionBackwardName, kernels.tree_attention_backward);
  Find(module, kRmsNormName, kernels.rms_norm);
  Find(module, kRmsNormBackwardName, kernels.rms_norm_backward);
  Find(module, kGateName, kernels.gate);
  Find(module, kRotateName, kernels.rotate);
  Find(module, kRowStatisticsName, kernels.row_statistics);
  Find(module, kRowGradientName, kernels.row_gradient);
  return kernels;
}

}  // namespace

const CudaKernels& FindCudaKernels() {
  static const CudaKernels kernels = OpenKernels();
  return kernels;
}

}  // namespace plural::trainer
