// Values of a device on the host.
//
// Owns: how they get there. Thread rule: any thread.
#pragma once

#include <ATen/core/TensorBody.h>

#include <vector>

namespace plural::trainer {

// The elements of each tensor in fp64, of undefined ones none, in one copy: the host waits once for a GPU.
std::vector<std::vector<double>> ReadTogether(const std::vector<at::Tensor>& tensors);

}  // namespace plural::trainer
