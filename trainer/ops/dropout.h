// Dropout of adapters: the draws of a row at a place of the model.
//
// Owns: the keys and the factors. Does not own: where dropout applies (linear.h, head.h). Thread rule:
// values.
//
// A row's draws are keyed by its token path (data::RowPass::path_key), so a token that several sequences
// share has one mask, and packing, cutting, ranks and layout change nothing.
#pragma once

#include <ATen/core/TensorBody.h>

#include <cstdint>

#include "trainer/ops/row_numbers.h"

namespace plural::trainer {

struct Dropout {
  at::Tensor row_key_R;    // [R] int64 on the host, the bits of each row's key; undefined: nothing is dropped
  std::uint64_t site = 0;  // place in the model
  at::Tensor row_key_on_gpu_R = {};  // the same on the GPU that computes, where one does

  explicit operator bool() const { return row_key_R.defined(); }
  // The place `part` within this one.
  Dropout At(std::uint64_t part) const;
  // The same place for these rows only.
  Dropout Rows(const RowNumbers& rows) const;
};

// x times inverted-dropout factors, 0 or 1 / (1 - p); the factor of element (r, i) is a function of
// (row key, site, i) alone. The same bits on the CPU and on a GPU, where one kernel draws and multiplies.
at::Tensor Dropped(const Dropout& dropout, double p, const at::Tensor& x_RI);

}  // namespace plural::trainer
