// What kernel_check compares of the kernels for generation: attention over a cache of keys and values, and
// the draw of tokens.
//
// Owns: their inputs, and what the CPU makes of them. Does not own: the comparison, times (kernel_check.cc).
// Thread rule: one thread.
#pragma once

#include <ATen/core/TensorBody.h>

#include <functional>
#include <string>
#include <vector>

#include "trainer/ops/cuda_kernels.h"

namespace plural::trainer {

struct GenerationCheck {
  std::string name;
  at::ScalarType dtype;
  std::function<std::vector<at::Tensor>()> run;
  std::vector<at::Tensor> wanted;  // fp64, on the CPU
  double allowed;                  // relative difference
  double bytes;                    // that a run reads
};

// Of the kernels that are there; they must outlive the checks.
std::vector<GenerationCheck> GenerationChecks(at::Device device, bool tiny, const CudaKernels& kernels);

}  // namespace plural::trainer
