// The matrix multiplies of a forward and backward pass.
//
// Owns: the choice of the library. On the CPU in fp32 that is oneDNN, some 10 % faster here than
// the BLAS that at::mm calls, for whole matrices, or for tiles (tile_multiply.h) where a matrix is
// narrow or sums of bf16 must not be rounded. Everything else is at::mm (which uses oneDNN for
// bf16). Does not own: the loops of inference on the CPU (row_products.h), weights and adapters
// (model/linear.h), gradients: for use inside hand-written functions and without gradients. Thread
// rule: pure functions.
//
// Shape letters: R rows, I in features, O out features.
#pragma once

#include <ATen/core/TensorBody.h>

#include <vector>

#include "trainer/ops/nf4.h"
#include "trainer/ops/tile_multiply.h"

namespace plural::trainer {

// x W^T + t B^T in one pass over the result, [R, O]; t [R, K] and B [O, K] may be undefined.
at::Tensor MultiplyTransposed(const at::Tensor& x_RI, const at::Tensor& weight_OI,
                              const at::Tensor& t_RK = {}, const at::Tensor& b_OK = {});
// The same, but bf16 gives fp32: sums are not rounded.
at::Tensor MultiplyUnrounded(const at::Tensor& x_RI, const at::Tensor& weight_OI, const at::Tensor& t_RK = {},
                             const at::Tensor& b_OK = {});
// x B for few columns of B, [R, K]; bf16 gives fp32.
at::Tensor MultiplyNarrow(const at::Tensor& x_RI, const at::Tensor& b_IK);
// x W, [R, I].
at::Tensor Multiply(const at::Tensor& x_RO, const at::Tensor& weight_OI);
// Adds the products of the pairs, [M, N], to the sum, which is made if it is undefined.
// `more_follow`: further calls add to the same sum; then the calls together give the bits of one
// call with all pairs.
void AddProducts(at::Tensor& sum_MN, const std::vector<Factors>& pairs, bool more_follow = false);

// A^T B, [J, I], of A [R, J] and B [R, I]: the gradient of a weight. bf16 gives fp32: sums over
// rows are not rounded.
at::Tensor SumOuterProducts(const at::Tensor& a_RJ, const at::Tensor& b_RI);

// x W^T where each row's result depends on that row alone, added to y where one is given. Inference
// uses it, so that no batch changes an answer; this holds to the bit on the CPU only. bf16 gives,
// and is added to, fp32: sums are not rounded.
at::Tensor MultiplyRows(const at::Tensor& x_RI, const at::Tensor& weight_OI, const at::Tensor& y_RO = {});
// The same bits with the weight in NF4. A few of its rows are dequantised at a time and stay in the
// cache, so memory is read at four bits per value.
at::Tensor MultiplyRows(const at::Tensor& x_RI, const Nf4Weight& weight);

}  // namespace plural::trainer
