// The decoder's row-wise functions: norm with residual sum, gated activation, rotary embedding.
//
// Owns: their forward and hand-written backward, fused so that each reads and writes every value once.
// Does not own: linear layers, attention. Thread rule: pure functions, one thread.
//
// Shape letters: N rows, E hidden size, F feed-forward size, D head dimension.
#pragma once

#include <ATen/core/TensorBody.h>

#include <cstdint>

namespace plural::trainer {

// y = x / sqrt(mean(x^2) + eps) * weight, over the last dimension.
at::Tensor RmsNorm(const at::Tensor& x_NE, const at::Tensor& weight_E, double eps);

struct SumAndNorm {
  at::Tensor sum_NE;   // residual + branch
  at::Tensor norm_NE;  // RmsNorm of the sum
};
SumAndNorm AddRmsNorm(const at::Tensor& residual_NE, const at::Tensor& branch_NE, const at::Tensor& weight_E,
                      double eps);

// silu(gate) * up, silu(x) = x / (1 + exp(-x)).
at::Tensor SwiGlu(const at::Tensor& gate_NF, const at::Tensor& up_NF);

// cos and sin of position * theta^(-2i/D), one row a position, computed in `dtype` as Hugging Face does.
struct RotaryTable {
  at::Tensor cos_ND2;  // [N, D/2]
  at::Tensor sin_ND2;
};
RotaryTable MakeRotaryTable(const at::Tensor& position_N, std::int64_t head_dim, double theta,
                            at::ScalarType dtype);
// Rotates the pairs (i, i + D/2) of every head; x is [N, heads * D].
at::Tensor Rotate(const at::Tensor& x, const RotaryTable& table);

}  // namespace plural::trainer
