// Random tensors for the checks of kernels.
//
// Owns: their distribution. Thread rule: any thread.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <cstdint>
#include <vector>

#include "data/random.h"

namespace plural::trainer {

// Uniform in [-1, 1), on the CPU.
inline at::Tensor RandomOperand(const std::vector<std::int64_t>& shape, std::uint64_t key,
                                at::ScalarType dtype) {
  data::CounterRandom random{data::Mix64(key)};
  const at::Tensor tensor = at::empty(shape, at::kFloat);
  auto* values = tensor.mutable_data_ptr<float>();
  for (std::int64_t e = 0; e < tensor.numel(); ++e)
    values[e] = static_cast<float>(2.0 * random.Uniform() - 1.0);
  return tensor.to(dtype);
}

}  // namespace plural::trainer
