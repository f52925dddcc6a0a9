#include "trainer/ops/rope.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/where.h>

#include <numbers>

#include "trainer/kernels/dtypes.h"
#include "trainer/ops/part_scope.h"

namespace plural::trainer {
namespace {

// theta^(-2i/D), scaled.
at::Tensor Frequencies(std::int64_t head_dim, const Rope& rope, const at::TensorOptions& options) {
  const at::Tensor exponent = at::arange(0, head_dim, 2, options).div_(static_cast<double>(head_dim));
  const at::Tensor frequency = at::pow(rope.theta, exponent).reciprocal_();
  if (rope.scaling == Rope::Scaling::kNone) return frequency;
  const at::Tensor slow = frequency / rope.factor;
  if (rope.scaling == Rope::Scaling::kLinear) return slow;
  const auto context = static_cast<double>(rope.original_max_position_embeddings);
  const at::Tensor wavelength = frequency.reciprocal().mul_(2.0 * std::numbers::pi);
  const at::Tensor share_of_fast = (wavelength.reciprocal() * context - rope.low_freq_factor)
                                       .div_(rope.high_freq_factor - rope.low_freq_factor);
  const at::Tensor between = (1.0 - share_of_fast) * frequency / rope.factor + share_of_fast * frequency;
  return at::where(wavelength > context / rope.low_freq_factor, slow,
                   at::where(wavelength < context / rope.high_freq_factor, frequency, between));
}

}  // namespace

RotaryTable MakeRotaryTable(const at::Tensor& position_N, std::int64_t head_dim, const Rope& rope,
                            at::ScalarType dtype) {
  const PartScope norm(Part::kNorm);
  const at::ScalarType wide = ComputedIn(dtype);
  const auto options = at::TensorOptions().dtype(wide).device(position_N.device());
  const at::Tensor angle = position_N.to(wide).unsqueeze(1) * Frequencies(head_dim, rope, options);
  return {angle.cos(), angle.sin()};
}

}  // namespace plural::trainer
