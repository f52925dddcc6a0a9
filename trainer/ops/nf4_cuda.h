// NF4 weights on a GPU.
//
// Owns: the use of the CUDA kernel, a module of its own (trainer/cuda/) that is opened when a weight lies on
// a GPU. Does not own: the formula elsewhere (nf4.h). Thread rule: as Nf4Weight.
#pragma once

#include <ATen/core/TensorBody.h>

#include "trainer/ops/nf4.h"

namespace plural::trainer {

// Nf4Weight::Dequantized into `out` [O, I] on the weight's device, in the order of its current stream. False,
// and nothing done, where the module is not there (built without nvcc) or has no such type of output.
bool DequantizeOnCuda(const Nf4Weight& weight, const at::Tensor& out_OI);

}  // namespace plural::trainer
