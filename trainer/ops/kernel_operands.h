// Tensors as the kernels for GPUs take them (kernels/cuda/module.h).
//
// Owns: the name of a type there, how much is read at once. Does not own: which kernels there are
// (cuda_kernels.h). Thread rule: any thread.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "trainer/kernels/cuda/module.h"

namespace plural::trainer {

// A row of a multiple of so many values can be read 16 bytes at a time, whatever its type.
constexpr std::int64_t kValuesAtOnce = 8;

// The name of a type that a model computes in: fp32, bf16 or fp64.
inline KernelType KernelTypeOf(at::ScalarType dtype) {
  return dtype == at::kFloat      ? KernelType::kFp32
         : dtype == at::kBFloat16 ? KernelType::kBf16
                                  : KernelType::kFp64;
}
inline bool IsFp32OrBf16(at::ScalarType dtype) { return dtype == at::kFloat || dtype == at::kBFloat16; }

// x itself where it is dense and begins at 16 bytes, else a copy that does.
inline at::Tensor ForKernel(const at::Tensor& x) {
  const bool serves = x.is_contiguous() && reinterpret_cast<std::uintptr_t>(x.const_data_ptr()) % 16 == 0;
  return serves ? x : x.clone(at::MemoryFormat::Contiguous);
}

}  // namespace plural::trainer
