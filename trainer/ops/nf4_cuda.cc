#include "trainer/ops/nf4_cuda.h"

#include <ATen/core/Tensor.h>
#include <c10/core/Stream.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <dlfcn.h>

#include <stdexcept>
#include <string>

#include "trainer/kernels/cuda/nf4_module.h"
#include "trainer/kernels/nf4_loops.h"

namespace plural::trainer {
namespace {

// Null without the module. It is never closed: kernels of it may be running.
DequantizeNf4OnCuda* FindKernel() {
  void* module = dlopen(kNf4Module, RTLD_NOW | RTLD_LOCAL);
  return module == nullptr ? nullptr
                           : reinterpret_cast<DequantizeNf4OnCuda*>(dlsym(module, kDequantizeNf4Name));
}

}  // namespace

bool DequantizeOnCuda(const Nf4Weight& weight, const at::Tensor& out_OI) {
  static DequantizeNf4OnCuda* const kernel = FindKernel();
  const at::ScalarType dtype = out_OI.scalar_type();
  if (kernel == nullptr || (dtype != at::kFloat && dtype != at::kBFloat16)) return false;
  const bool twice = weight.DoublyQuantized();
  const Nf4Arguments arguments{
      .packed = weight.packed_P.const_data_ptr<std::uint8_t>(),
      .count = out_OI.numel(),
      .absmax = twice ? nullptr : weight.absmax_B.const_data_ptr<float>(),
      .codes = twice ? weight.absmax_B.const_data_ptr<std::uint8_t>() : nullptr,
      .map = twice ? weight.map.const_data_ptr<float>() : nullptr,
      .nested = twice ? weight.nested_absmax_N.const_data_ptr<float>() : nullptr,
      .offset = weight.offset,
      .values = host::kNf4Values.data(),
      .out = out_OI.mutable_data_ptr(),
      .type = dtype == at::kFloat ? Nf4Output::kFp32 : Nf4Output::kBf16,
  };
  const at::Device device = out_OI.device();
  const auto* cuda = c10::impl::getDeviceGuardImpl(device.type());
  if (const int error = kernel(arguments, cuda->getStream(device).native_handle()); error != 0) {
    throw std::runtime_error("the NF4 kernel did not start: CUDA error " + std::to_string(error));
  }
  return true;
}

}  // namespace plural::trainer
