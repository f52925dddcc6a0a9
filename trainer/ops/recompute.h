// Recomputation: a part of the forward pass that keeps only its inputs and runs again in backward.
//
// Owns: running it twice, so that values and gradients are those of running it once. Does not own:
// which part that is (decoder.h), when memory requires it (train_step.h). Thread rule: one thread.
#pragma once

#include <ATen/core/TensorBody.h>

#include <functional>
#include <vector>

namespace plural::trainer {

// A deterministic function of `inputs` and of the parameters that it captures. It outlives the
// call: what it captures must live until backward.
using Region = std::function<std::vector<at::Tensor>(const std::vector<at::Tensor>& inputs)>;

// region(inputs). The parameters get their gradients from a backward inside the backward, so where
// gradients are sent as they arrive (dist/gradient_sync.h), each may be used in one region only.
std::vector<at::Tensor> Recomputed(const Region& region, const std::vector<at::Tensor>& inputs);

}  // namespace plural::trainer
