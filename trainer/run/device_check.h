// A test of the attention kernel on this machine's own device, before a run trusts it, and what is said where
// the kernels for GPUs are missing.
//
// Owns: small inputs, the plain formula, what may differ. Does not own: the kernels (ops/attention.h).
// Thread rule: one thread.
#pragma once

#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <string>
#include <vector>

#include "trainer/model/config.h"

namespace plural::trainer {

// The largest difference of output and gradients between MakePassAttention on `device` in `dtype` and the
// masked softmax in fp64 on the CPU, relative to the largest value: of a tree and of padded rows, without a
// window and with one, for the head counts, head dimension and score terms of `config`.
double AttentionError(const ModelConfig& config, at::ScalarType dtype, at::Device device);

// Errors: kWrongResources where it is larger than rounding explains, or not a number. Kernels are chosen by
// the GPU's generation, or generated for the processor; a GPU's have returned NaN under a mask before.
void CheckAttention(const ModelConfig& config, at::ScalarType dtype, at::Device device);

// Errors: kBadRecipe where `device` is a GPU, whose masked attention kernel has no form for the model's head
// dimension: libtorch would call that an internal error.
void RequireHeadDimension(const ModelConfig& config, at::ScalarType dtype, at::Device device);

// For ranks on GPUs, whose KernelsProblem (ops/cuda_kernels.h) these are: why the first that lacks the
// kernels does, what to do, what it costs. "" where none does.
std::string KernelWarning(const std::vector<std::string>& problem_of_rank);

}  // namespace plural::trainer
