// Attention of a token tree on a GPU, by the kernels of the module (trainer/kernels/cuda/tree_attention.cu).
//
// Owns: what the kernels are told, the gradient. Does not own: which blocks see each other (tree_lists.h),
// what the kernels compute. Thread rule: one thread, one pass.
#pragma once

#include <memory>

#include "trainer/ops/attention.h"
#include "trainer/ops/cuda_kernels.h"

namespace plural::trainer {

// `pass` is in the tree layout. Null where no kernel serves: no module, fp64, a head dimension that is no
// multiple of 8 or above 256, an old GPU. Memory is linear in rows. With bf16, probabilities and score
// gradients are rounded between two products, sums are not; the same bits each time.
std::unique_ptr<Attention> MakeTreeAttentionOnCuda(const data::RowPass& pass, const AttentionTerms& terms,
                                                   at::ScalarType dtype, at::Device device,
                                                   const CudaKernels& kernels = FindCudaKernels());

}  // namespace plural::trainer
