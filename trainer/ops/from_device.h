// Copies of a device's values on the host.
//
// Owns: the copy. Does not own: when it is made, which decides what the host waits for. Thread rule: any
// thread.
#pragma once

#include <ATen/core/TensorBody.h>

#include <vector>

namespace plural::trainer {

// The elements of each tensor in fp64 (undefined: none), in one copy: the host waits once.
std::vector<std::vector<double>> ReadTogether(const std::vector<at::Tensor>& tensors);

}  // namespace plural::trainer
