// Outer products: A^T B of bf16, summed over rows in fp32.
//
// Owns: the CPU loop behind gradients of weights and factors whose activations are bf16. Libraries
// would round the sum to bf16; here one row more or less in a pass changes a gradient only by that
// row's part and by fp32 rounding. Does not own: tensors, threads (multiply.h). Thread rule: pure
// functions.
#pragma once

#include <c10/util/BFloat16.h>

#include <cstdint>

namespace plural::trainer::host {

// y[j, i] = sum over r of a[r, j] b[r, i]: a is [rows, width_a]; rows of b and y are `stride`
// values apart, and their first `width_b` columns are computed.
struct OuterProductShape {
  std::int64_t rows = 0, width_a = 0, width_b = 0, stride = 0;
};
void OuterProducts(const c10::BFloat16* a, const c10::BFloat16* b, const OuterProductShape& shape, float* y);

}  // namespace plural::trainer::host
