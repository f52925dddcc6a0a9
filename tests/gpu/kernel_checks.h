// What kernel_check compares, by kind of kernel.
//
// Owns: inputs, and what the CPU makes of them. Does not own: the comparison, times (kernel_check.cc). Thread
// rule: one thread.
#pragma once

#include <ATen/core/TensorBody.h>

#include <functional>
#include <string>
#include <vector>

#include "trainer/ops/cuda_kernels.h"

namespace plural::trainer {

struct KernelCheck {
  std::string name;
  at::ScalarType dtype;
  std::function<std::vector<at::Tensor>()> run;
  std::vector<at::Tensor> wanted;     // on the CPU; empty: only the time is asked for
  double allowed_relative_error = 0;  // of the largest element; 0: equal to the bit
  double bytes = 0, flops = 0;        // of one run; flops 0: bytes alone say how fast it is
};

// `kernels` outlives the checks. `tiny`: shapes for the emulation.
//
// Attention of a token tree and its gradient; on a GPU the shape of a 7B model's layer, too, for its time
// alone.
std::vector<KernelCheck> AttentionChecks(at::Device device, bool tiny, const CudaKernels& kernels);
// Attention over a cache of keys and values, and the draw of tokens.
std::vector<KernelCheck> GenerationChecks(at::Device device, bool tiny, const CudaKernels& kernels);
// What works on rows: norms, gates, rotation, dropout, NF4, logits, AdamW.
std::vector<KernelCheck> RowChecks(at::Device device, bool tiny, const CudaKernels& kernels);

}  // namespace plural::trainer
