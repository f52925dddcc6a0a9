// Row numbers on the host and on a device.
//
// Owns: one list of rows in both places: on the device for tensors, on the host for draws and
// look-ups, so that the host never waits for the device to read it. Does not own: which rows they are.
// Thread rule: a value.
#pragma once

#include <ATen/core/TensorBody.h>

#include <cstdint>
#include <vector>

namespace plural::trainer {

struct RowNumbers {
  RowNumbers() = default;  // none: all rows
  RowNumbers(std::vector<std::int64_t> rows, at::Device device);

  explicit operator bool() const { return on_device.defined(); }

  std::vector<std::int64_t> host;
  at::Tensor on_device;  // [S] int64
};

}  // namespace plural::trainer
