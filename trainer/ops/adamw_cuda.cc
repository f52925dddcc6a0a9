#include "trainer/ops/adamw_cuda.h"

#include <ATen/core/Tensor.h>

namespace plural::trainer {

bool UpdateByKernel(const AdamWBuffers& buffers, const AdamWScalars<double>& scalars,
                    const CudaKernels* given) {
  AdamWOnCuda* const kernel = KernelsFor(buffers.values, given).adamw;
  const at::ScalarType dtype = buffers.values.scalar_type();
  if (kernel == nullptr || (dtype != at::kFloat && dtype != at::kDouble)) return false;
  StartKernel(kernel, "plural::adamw",
              AdamWArguments{.values = buffers.values.mutable_data_ptr(),
                             .gradients = buffers.gradients.const_data_ptr(),
                             .first_moment = buffers.first_moment.mutable_data_ptr(),
                             .second_moment = buffers.second_moment.mutable_data_ptr(),
                             .count = buffers.values.numel(),
                             .scalars = scalars,
                             .type = dtype == at::kFloat ? KernelType::kFp32 : KernelType::kFp64},
              buffers.values.device());
  return true;
}

}  // namespace plural::trainer
