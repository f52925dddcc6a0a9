// Attention whose scores are bounded before the softmax, for which there is no fused kernel.
//
// Owns: forward and backward in ATen's own operators, on any device, one block of query rows at a
// time: memory grows with block times keys, backward recomputes the probabilities, and sums over
// blocks are fp32 at least. Does not own: visibility (attention.h), trees on the CPU
// (tree_attention.h). Thread rule: one thread.
#pragma once

#include <ATen/core/TensorBody.h>

#include "trainer/kernels/host_loops.h"

namespace plural::trainer {

// q, k, v [B, H, T, D] -> [B, H, T, D]: softmax(softcap tanh(scale q k^T / softcap) + mask) v. mask is
// [B or 1, 1, T, T] of 0 and -inf; undefined: causal.
at::Tensor CappedAttention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           const at::Tensor& mask, const host::ScoreTerms& terms);

}  // namespace plural::trainer
