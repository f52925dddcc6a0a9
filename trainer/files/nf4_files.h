// NF4 weights in weight files, as transformers saves a model that bitsandbytes quantised.
//
// A weight X is quantised when the files hold companions of it, whatever config.json says:
//   X                                 uint8 [P, 1]: two values a byte; or as many bytes of another dtype
//   X.absmax                          fp32 [B]; with double quantisation uint8 [B]
//   X.quant_map                       fp32 [16]: the NF4 values
//   X.quant_state.bitsandbytes__nf4   a JSON object as bytes: quant_type, blocksize, shape, dtype; with
//   double
//                                     quantisation also nested_blocksize, nested_offset
//   X.nested_absmax, X.nested_quant_map   fp32 [N], fp32 [256]: with double quantisation
//
// Owns: these keys and their rules. Does not own: the format of the values (nf4.h), which weights a model has
// (hf_folder.h). Thread rule: one thread.
//
// Shape letters: P packed bytes, B blocks of 64 values, N blocks of 256 blocks.
#pragma once

#include <ATen/core/TensorBody.h>

#include <filesystem>
#include <string>
#include <vector>

#include "trainer/files/weight_files.h"
#include "trainer/ops/nf4.h"

namespace plural::trainer {

// Names of the tensors that say how `name` is quantised; none for an ordinary tensor.
std::vector<std::string> QuantizationCompanions(const WeightFiles& files, const std::string& name);

// What can be said of a quantised weight without reading its values.
struct StoredNf4 {
  bool double_quantization = false;
  float offset = 0.0F;
  at::ScalarType dtype = at::kFloat;  // of the weight before it was quantised
};
// Errors: ExitError(kBadData) naming the tensor that is missing, has another dtype or size, another kind of
// quantisation or block than NF4 in blocks of 64 and 256, or another shape than `shape`.
StoredNf4 CheckNf4(const WeightFiles& files, const std::string& name, at::IntArrayRef shape);
// Errors: also ExitError(kBadData) for a map that is not NF4's and for values that are not finite.
Nf4Weight ReadNf4(const WeightFiles& files, const std::string& name, at::IntArrayRef shape);

}  // namespace plural::trainer
