// Row numbers that both sides need.
//
// Owns: a list of rows on a device, for tensors, and on the host, for what is drawn or looked up there, so
// that nobody waits for the device to learn it. Thread rule: a value.
#pragma once

#include <ATen/core/TensorBody.h>

#include <cstdint>
#include <vector>

namespace plural::trainer {

struct RowNumbers {
  RowNumbers() = default;  // none given: all rows
  RowNumbers(std::vector<std::int64_t> rows, at::Device device);

  explicit operator bool() const { return on_device.defined(); }

  std::vector<std::int64_t> host;
  at::Tensor on_device;  // [S] int64
};

}  // namespace plural::trainer
