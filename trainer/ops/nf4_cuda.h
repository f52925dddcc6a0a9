// NF4 weights on a GPU.
//
// Owns: the use of the CUDA kernel (cuda_kernels.h). Does not own: the formula elsewhere (nf4.h).
// Thread rule: as Nf4Weight.
#pragma once

#include <ATen/core/TensorBody.h>

#include "trainer/ops/nf4.h"

namespace plural::trainer {

// Nf4Weight::Dequantized into `out` [O, I] on the weight's device, in the order of its current
// stream. Returns false and does nothing where the module is missing (a build without nvcc) or
// lacks the output type.
bool DequantizeOnCuda(const Nf4Weight& weight, const at::Tensor& out_OI);

}  // namespace plural::trainer
