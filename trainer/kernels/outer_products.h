// Outer products: A^T B of bf16, summed over rows in fp32.
//
// Owns: the CPU loop behind gradients of weights and factors whose activations are bf16. Libraries would
// round the sum to bf16; here one row more or less, in this pass or the next, changes a gradient by that
// row's part and fp32 rounding alone. Does not own: tensors, threads (multiply.h). Thread rule: pure
// functions.
#pragma once

#include <c10/util/BFloat16.h>

#include <cstdint>

namespace plural::trainer::host {

// y[j, i] = sum over r of a[r, j] b[r, i]: a [rows, width_a], b and y with rows `stride` values apart, of
// which the first `width_b` are computed.
struct OuterProductShape {
  std::int64_t rows = 0, width_a = 0, width_b = 0, stride = 0;
};
void OuterProducts(const c10::BFloat16* a, const c10::BFloat16* b, const OuterProductShape& shape, float* y);

}  // namespace plural::trainer::host
