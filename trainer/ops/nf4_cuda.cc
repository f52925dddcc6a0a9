#include "trainer/ops/nf4_cuda.h"

#include <ATen/core/Tensor.h>

#include "trainer/kernels/nf4_loops.h"
#include "trainer/ops/cuda_kernels.h"
#include "trainer/ops/kernel_operands.h"

namespace plural::trainer {
bool DequantizeOnCuda(const Nf4Weight& weight, const at::Tensor& out_OI) {
  DequantizeNf4OnCuda* const kernel = FindCudaKernels().dequantize_nf4;
  const at::ScalarType dtype = out_OI.scalar_type();
  if (kernel == nullptr || !IsFp32OrBf16(dtype)) return false;
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
      .type = KernelTypeOf(dtype),
  };
  StartKernel(kernel, "plural::nf4", arguments, out_OI.device());
  return true;
}

}  // namespace plural::trainer
