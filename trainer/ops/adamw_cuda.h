// AdamW's update on a GPU, one kernel (trainer/kernels/cuda/adamw.cu).
//
// Owns: the use of the kernel. Does not own: which ranges there are and their scalars
// (trainer/state/optimizer.h). Thread rule: any thread.
#pragma once

#include <ATen/core/TensorBody.h>

#include "trainer/kernels/cuda/adamw_module.h"
#include "trainer/ops/cuda_kernels.h"

namespace plural::trainer {

struct AdamWBuffers {
  at::Tensor values, gradients, first_moment, second_moment;  // [n]
};

// Updates the buffers, dense and of one type, with the bits of the CPU's loop. False where no kernel serves:
// tensors that are on no GPU unless `kernels` are given, no module, other types than fp32 and fp64.
bool UpdateByKernel(const AdamWBuffers& buffers, const AdamWScalars<double>& scalars,
                    const CudaKernels* kernels = nullptr);

}  // namespace plural::trainer
