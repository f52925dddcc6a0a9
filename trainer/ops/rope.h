// Rotary position embedding: the angle by which a position turns each pair of a head.
//
// Owns: frequencies, with the two kinds of scaling that extend a model's context beyond its
// training, and the table of a pass. Does not own: the rotation (pointwise.h), which layer takes
// which (config.h). Thread rule: pure functions of values.
//
// Shape letters: N rows, D head dimension.
#pragma once

#include <ATen/core/TensorBody.h>

#include <cstdint>

#include "trainer/ops/terms.h"

namespace plural::trainer {

// cos and sin of position * frequency, one row per position.
struct RotaryTable {
  at::Tensor cos_ND2;  // [N, D/2]
  at::Tensor sin_ND2;
};
// In fp32 (fp64 for a `dtype` of fp64). Angles are computed in the order of transformers, so that
// far positions are rounded in the same way.
RotaryTable MakeRotaryTable(const at::Tensor& position_N, std::int64_t head_dim, const Rope& rope,
                            at::ScalarType dtype);

}  // namespace plural::trainer
