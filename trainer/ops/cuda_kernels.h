// The CUDA kernels of the trainer, a module of its own (trainer/kernels/cuda/) that is opened when a tensor
// lies on a GPU.
//
// Owns: opening the module, or why that fails; a kernel's device and stream, its error. Does not own: what
// kernels do, who is told (run/device_check.h).
// Thread rule: any thread.
#pragma once

#include <ATen/core/TensorBody.h>
#include <ATen/record_function.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/Stream.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

#include <stdexcept>
#include <string>
#include <string_view>

#include "trainer/kernels/cuda/adamw_module.h"
#include "trainer/kernels/cuda/drop_sites_module.h"
#include "trainer/kernels/cuda/joined_rows_module.h"
#include "trainer/kernels/cuda/logit_rows_module.h"
#include "trainer/kernels/cuda/module.h"
#include "trainer/kernels/cuda/path_attention_module.h"
#include "trainer/kernels/cuda/sample_rows_module.h"

namespace plural::trainer {

struct CudaKernels {
  DequantizeNf4OnCuda* dequantize_nf4 = nullptr;
  DropoutOnCuda* dropout = nullptr;
  DropSitesOnCuda* drop_sites = nullptr;
  TreeAttentionServesOnCuda* tree_attention_serves = nullptr;
  TreeAttentionOnCuda* tree_attention = nullptr;
  TreeAttentionOnCuda* tree_attention_backward = nullptr;
  RmsNormOnCuda* rms_norm = nullptr;
  RmsNormBackwardOnCuda* rms_norm_backward = nullptr;
  GateOnCuda* gate = nullptr;
  RotateOnCuda* rotate = nullptr;
  GateJoinedOnCuda* gate_joined = nullptr;
  RotateJoinedOnCuda* rotate_joined = nullptr;
  RowStatisticsOnCuda* row_statistics = nullptr;
  RowGradientOnCuda* row_gradient = nullptr;
  PathAttentionOnCuda* path_attention = nullptr;
  SampleRowsOnCuda* sample_rows = nullptr;
  AdamWOnCuda* adamw = nullptr;
};

struct KernelModule {
  CudaKernels kernels;  // all or none
  std::string problem;  // why there are none, and what to do; else ""
};
// `file`: as dlopen looks for it. It is never closed: kernels of it may be running.
KernelModule OpenKernelModule(const std::string& file);

// Those of this build's module, opened once: null pointers where it is missing, and of the kernels that the
// environment variable PLURAL_WITHOUT_KERNELS names. Errors: those of WithoutKernels.
const CudaKernels& FindCudaKernels();
// Why this build's module is missing, and what to do; "" where it is there.
const std::string& KernelsProblem();
// Those for tensors of a device; null for the CPU.
const CudaKernels* KernelsOf(at::Device device);

// `kernels` but for those of `names` ("attention,norm"), in whose place libtorch's operators compute: whether
// a kernel is at fault is seen without it. Errors: ExitError(kUsage).
CudaKernels WithoutKernels(CudaKernels kernels, std::string_view names);

// Those of the module for tensors on a GPU, the given ones for any, as tests do; else none.
const CudaKernels& KernelsFor(const at::Tensor& x, const CudaKernels* given);

// Starts a kernel on the device's current stream, for the recorder as an operator of that name
// ("plural::nf4"). Errors: std::runtime_error.
template <class Arguments>
void StartKernel(int (*kernel)(const Arguments&, void*), const char* name, const Arguments& arguments,
                 at::Device device) {
  at::RecordFunction recorder(at::RecordScope::FUNCTION);
  if (recorder.isActive()) recorder.before(name);
  const c10::DeviceGuard guard(device);
  void* stream = nullptr;  // of a kernel that is emulated on the host, as tests do
  if (device.is_cuda()) {
    stream = c10::impl::getDeviceGuardImpl(device.type())->getStream(device).native_handle();
  }
  if (const int error = kernel(arguments, stream); error != 0) {
    throw std::runtime_error("the kernel '" + std::string(name) + "' did not start: CUDA error " +
                             std::to_string(error));
  }
}

}  // namespace plural::trainer
