// Attention of a token tree on a GPU, by the kernels of the module (trainer/kernels/cuda/tree_attention.cu).
//
// Owns: what the kernels are told, the gradient. Does not own: which blocks see each other (tree_lists.h),
// what the kernels compute. Thread rule: one thread, one pass.
#pragma once

#include <cstdint>
#include <memory>

#include "trainer/ops/attention.h"
#include "trainer/ops/cuda_kernels.h"

namespace plural::trainer {

// Whether there is a kernel for heads of this dimension in a type of so many bytes, a question of shapes
// alone.
bool HasTreeKernel(std::int64_t head_dim, std::int64_t element_bytes);
// Whether it runs: the module is there, and the GPU has what the kernel needs.
bool TreeKernelServes(const AttentionTerms& terms, at::ScalarType dtype, at::Device device,
                      const CudaKernels& kernels = FindCudaKernels());

// `pass` is in the tree layout. Null where no kernel serves: no module, fp64, a head dimension that is no
// multiple of 8 or above 256, an old GPU. Memory is linear in rows. With bf16, probabilities and score
// gradients are rounded between two products, sums are not; the same bits each time.
std::unique_ptr<Attention> MakeTreeAttentionOnCuda(const data::RowPass& pass, const AttentionTerms& terms,
                                                   at::ScalarType dtype, at::Device device,
                                                   const CudaKernels& kernels = FindCudaKernels());

}  // namespace plural::trainer
