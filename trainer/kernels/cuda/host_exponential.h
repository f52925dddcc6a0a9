// exp as the host's loops compute it (Exp in kernels/host_vectors.h), for kernels that must choose as the
// host does.
//
// Owns: the order of operations, with the fused multiply-adds that compilers make of that expression for
// processors that have them. Does not own: the loops that it must equal, the kernels that call it. Thread
// rule: pure functions.
#pragma once

#include "trainer/kernels/cuda/unfused.h"

namespace plural::trainer::gpu {

PLURAL_DEVICE float HostExponential(float input) {
  if (input != input) return input;
  float x = input < -87.33654F ? -87.33654F : input;
  x = x > 89.0F ? 89.0F : x;
  constexpr float kRounding = 12582912.0F;
  const float n = Plus(FusedMultiplyAdd(x, 1.44269504F, kRounding), -kRounding);
  const float r = FusedMultiplyAdd(n, 2.12194440e-4F, FusedMultiplyAdd(-n, 0.693359375F, x));
  float y = FusedMultiplyAdd(1.9875691500e-4F, r, 1.3981999507e-3F);
  y = FusedMultiplyAdd(y, r, 8.3334519073e-3F);
  y = FusedMultiplyAdd(y, r, 4.1665795894e-2F);
  y = FusedMultiplyAdd(y, r, 1.6666665459e-1F);
  y = FusedMultiplyAdd(y, r, 5.0000001201e-1F);
  y = Plus(FusedMultiplyAdd(Product(y, r), r, r), 1.0F);
  const float scale = FloatOf(static_cast<std::uint32_t>(static_cast<int>(n) + 127) << 23);
  return input < -87.33654F ? 0.0F : Product(y, scale);
}

}  // namespace plural::trainer::gpu
