// Recomputation: a part of the forward pass that keeps its inputs only and runs again in backward.
//
// Owns: running it twice, so that values and gradients are those of running it once. Does not own: which part
// that is (decoder.h), when memory asks for it (trainer/train_step.h). Thread rule: one thread.
#pragma once

#include <ATen/core/TensorBody.h>

#include <functional>
#include <vector>

namespace plural::trainer {

// A deterministic function of `inputs` and of parameters it refers to itself. It outlives the call: what it
// captures must live until backward.
using Region = std::function<std::vector<at::Tensor>(const std::vector<at::Tensor>& inputs)>;

// region(inputs). The parameters get their gradients from a backward inside the backward, so each may be
// used in one region only where gradients are sent as they come (dist/gradient_sync.h).
std::vector<at::Tensor> Recomputed(const Region& region, const std::vector<at::Tensor>& inputs);

}  // namespace plural::trainer
