#include "trainer/ops/cuda_kernels.h"

#include <dlfcn.h>

namespace plural::trainer {
namespace {

// The module is never closed: kernels of it may be running.
CudaKernels OpenKernels() {
  void* module = dlopen(kKernelModule, RTLD_NOW | RTLD_LOCAL);
  if (module == nullptr) return {};
  return {.dequantize_nf4 = reinterpret_cast<DequantizeNf4OnCuda*>(dlsym(module, kDequantizeNf4Name)),
          .dropout = reinterpret_cast<DropoutOnCuda*>(dlsym(module, kDropoutName))};
}

}  // namespace

const CudaKernels& FindCudaKernels() {
  static const CudaKernels kernels = OpenKernels();
  return kernels;
}

}  // namespace plural::trainer
