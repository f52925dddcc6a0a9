// Random weights: the draws that new parameters start from.
//
// Owns: which draws belong to which parameter, the normal distribution. Does not own: which distribution a
// parameter takes (decoder.h, latents.h). Thread rule: pure functions of their arguments.
#pragma once

#include <ATen/core/TensorBody.h>

#include <cstdint>
#include <functional>
#include <string>

#include "data/random.h"

namespace plural::trainer {

// The draws of one parameter: a function of (seed, name), so that they are the same on every rank.
data::CounterRandom DrawsFor(std::uint64_t seed, const std::string& name);

// Fills `tensor` with draws of `draw`, made in fp64 on the host in element order.
void Fill(const at::Tensor& tensor, const std::function<double()>& draw);
void FillNormal(const at::Tensor& tensor, double stddev, data::CounterRandom random);

}  // namespace plural::trainer
