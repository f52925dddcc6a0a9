// The tensors in a checkpoint's files, compared with those of the recipe.
//
// Owns: the comparison of names, shapes and dtypes. Does not own: which files there are (checkpoint.h), the
// format (files/safetensors.h). Thread rule: one thread.
#pragma once

#include <ATen/core/TensorBody.h>

#include <string>
#include <vector>

#include "dist/flat_parameters.h"
#include "trainer/files/safetensors.h"

namespace plural::trainer {

// Errors of all: ExitError(kBadData) naming the file and the tensor.

void RequireTensors(const SafetensorsReader& reader, std::size_t count);

// One tensor, in memory of its own.
at::Tensor ReadTensor(const SafetensorsReader& reader, const std::string& name, at::IntArrayRef shape,
                      at::ScalarType dtype);

// Fills `tensors` from the file, which has no others.
void FillTensors(const SafetensorsReader& reader, const std::vector<dist::NamedTensor>& tensors);

}  // namespace plural::trainer
