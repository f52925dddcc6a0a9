// Products of matrices, tile by tile, whose sums are not rounded.
//
// Owns: cutting and packing matrices for TileProduct (tile_products.h), the division among threads.
// Does not own: which products are done this way (multiply.h). Thread rule: one thread calls; every
// element of the result is summed in one order, whatever the number of compute threads.
#pragma once

#include <ATen/core/TensorBody.h>

#include <vector>

namespace plural::trainer {

// Two matrices of fp32 or bf16 on the CPU, read in place if rows or columns are dense, else copied.
struct Factors {
  at::Tensor a_MK, b_KN;
};

// Sets y_MN (dense rows, fp32) to the sum of the pairs' products, or with `add` adds it to y_MN.
void TileMultiply(const std::vector<Factors>& pairs, const at::Tensor& y_MN, bool add = false);

}  // namespace plural::trainer
