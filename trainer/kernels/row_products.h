// Row products: x W^T where a row's result does not depend on the other rows.
//
// Owns: the CPU loop of inference's matrix products. Every output is the dot product of one row of
// x and one row of W, summed in one fixed order, so batches, packing and ranks change no bit.
// Weights are read in place, once for all rows, and prefetched: few rows are bound by memory
// bandwidth, many by arithmetic. Does not own: tensors, threads, gradients (multiply.h, linear.h).
// Thread rule: pure functions.
#pragma once

#include <c10/util/BFloat16.h>

#include <cstdint>

namespace plural::trainer::host {

// y[r, o] = sum over i of x[r, i] w[o, i], plus the old y[r, o] with `add`. All three are
// row-major; x and w are dense, rows of y are `y_stride` values apart.
struct RowProductShape {
  std::int64_t rows = 0, inputs = 0, outputs = 0, y_stride = 0;
  bool add = false;
};
void RowProducts(const float* x, const float* w, const RowProductShape& shape, float* y);
void RowProducts(const double* x, const double* w, const RowProductShape& shape, double* y);
// Sums are fp32. Their order differs between processors that multiply bf16 and those that do not.
void RowProducts(const c10::BFloat16* x, const c10::BFloat16* w, const RowProductShape& shape, float* y);

}  // namespace plural::trainer::host
