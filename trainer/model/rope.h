// Rotary position embedding: the angle by which a position turns each pair of a head.
//
// Owns: frequencies, with the two kinds of scaling that let a model read further than it was trained, and the
// table of a pass. Does not own: the rotation (pointwise.h), which layer takes which (config.h). Thread rule:
// pure functions of values.
//
// Shape letters: N rows, D head dimension.
#pragma once

#include <ATen/core/TensorBody.h>

#include <cstdint>

namespace plural::trainer {

struct Rope {
  enum class Scaling : std::uint8_t {
    kNone,
    kLinear,  // every frequency divided by `factor`
    kLlama3,  // slow ones divided, fast ones kept, those between blended
  };
  double theta = 10000.0;
  Scaling scaling = Scaling::kNone;
  double factor = 1.0;
  // kLlama3: a pair that turns fewer than low_freq_factor times within the positions of the first training is
  // slow, one that turns more than high_freq_factor times fast.
  double low_freq_factor = 1.0, high_freq_factor = 4.0;
  std::int64_t original_max_position_embeddings = 0;

  bool operator==(const Rope&) const = default;
};

// cos and sin of position * frequency, one row a position.
struct RotaryTable {
  at::Tensor cos_ND2;  // [N, D/2]
  at::Tensor sin_ND2;
};
// In fp32 (fp64 for a `dtype` of fp64), angles in the order of transformers, so that far positions round
// alike.
RotaryTable MakeRotaryTable(const at::Tensor& position_N, std::int64_t head_dim, const Rope& rope,
                            at::ScalarType dtype);

}  // namespace plural::trainer
