// Random weights: the draws that new parameters start from.
//
// Owns: which draws belong to which parameter, the distributions. Does not own: which distribution a
// parameter takes (decoder.h, latents.h). Thread rule: pure functions of their arguments, which divide the
// work over libtorch's threads; any number of them gives the same bits.
#pragma once

#include <ATen/core/TensorBody.h>

#include <cstdint>
#include <string>

namespace plural::trainer {

// The key of one parameter's draws: a function of (seed, name), so that they are the same on every rank.
std::uint64_t DrawsFor(std::uint64_t seed, const std::string& name);

// Fill `tensor` with draws of `key`, made in fp64 on the host and rounded to the tensor's type: element e
// takes draw e, of a normal distribution the draws of its pair.
void FillUniform(const at::Tensor& tensor, double bound, std::uint64_t key);  // in [-bound, bound)
void FillNormal(const at::Tensor& tensor, double stddev, std::uint64_t key);

}  // namespace plural::trainer
