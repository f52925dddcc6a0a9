// Rows of one product for several layers: queries, keys and values, or gate and up, side by side.
//
// Owns: what is done with them first, rotation and gate, with its gradient, so that on a GPU no part is
// copied out before. Does not own: the product (model/linear.h), the formulas (pointwise.h), whose functions
// compute where no kernel serves. Thread rule: pure functions.
//
// Shape letters: N rows, H query heads, G key heads, D head dimension, F feed-forward size.
#pragma once

#include <ATen/core/TensorBody.h>

#include <cstdint>
#include <vector>

#include "trainer/ops/rope.h"
#include "trainer/ops/terms.h"

namespace plural::trainer {

struct CudaKernels;

// `kernels` null: those of the module, for tensors on a GPU. Tests pass emulated ones.

// Queries and keys rotated, and values, of [N, (H + 2 G) D]. Each has memory of its own: attention keeps the
// values, which would keep the rest.
std::vector<at::Tensor> RotateJoined(const at::Tensor& joined, const RotaryTable& table,
                                     std::int64_t query_heads, std::int64_t key_heads,
                                     const CudaKernels* kernels = nullptr);

// activation(gate) * up of [N, 2 F].
at::Tensor GateJoined(Activation activation, const at::Tensor& gate_up, const CudaKernels* kernels = nullptr);

}  // namespace plural::trainer
