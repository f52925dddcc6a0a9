// The decoder's row-wise functions: norm with residual sum, gated activation, rotation, soft cap.
//
// Owns: their forward and hand-written backward, fused so that each reads and writes every value once.
// Does not own: linear layers, attention. Thread rule: pure functions, one thread.
//
// Shape letters: N rows, E hidden size, F feed-forward size, D head dimension.
#pragma once

#include <ATen/core/TensorBody.h>

#include <cstdint>

#include "trainer/ops/rope.h"
#include "trainer/ops/terms.h"

namespace plural::trainer {

// y = x / sqrt(mean(x^2) + eps) * (weight + weight_offset), over the last dimension.
at::Tensor RmsNorm(const at::Tensor& x_NE, const at::Tensor& weight_E, const NormTerms& terms);

struct SumAndNorm {
  at::Tensor sum_NE;   // residual + branch
  at::Tensor norm_NE;  // RmsNorm of the sum
};
SumAndNorm AddRmsNorm(const at::Tensor& residual_NE, const at::Tensor& branch_NE, const at::Tensor& weight_E,
                      const NormTerms& terms);

// activation(gate) * up.
at::Tensor GatedActivation(Activation activation, const at::Tensor& gate_NF, const at::Tensor& up_NF);

// cap tanh(x / cap): values bounded by `cap` on both sides.
at::Tensor SoftCap(const at::Tensor& x, double cap);
// The same in place, for a dense x and without a gradient.
void SoftCapInPlace(at::Tensor& x, double cap);

// Rotates the pairs (i, i + D/2) of every head; x is [N, heads * D].
at::Tensor Rotate(const at::Tensor& x, const RotaryTable& table);

}  // namespace plural::trainer
