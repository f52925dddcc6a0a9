// Copies of the host's values on a device.
//
// Owns: the copy. Does not own: copies of many values at once (packed_upload.h). Thread rule: any thread.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/tensor.h>

#include <vector>

namespace plural::trainer {

// To a GPU from pinned memory, so that the host does not wait; libtorch keeps that memory until the copy is
// done.
inline at::Tensor ToDevice(const at::Tensor& host, at::Device device) {
  return device.is_cuda() ? host.pin_memory().to(device, /*non_blocking=*/true) : host.to(device);
}

template <class T>
at::Tensor ToDevice(const std::vector<T>& values, at::ScalarType dtype, at::Device device) {
  return ToDevice(at::tensor(at::ArrayRef<T>(values), dtype), device);
}

}  // namespace plural::trainer
