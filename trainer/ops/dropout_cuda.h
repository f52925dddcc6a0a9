// The inputs of several adapters with dropout, and their gradients, on a GPU: one kernel for all of them
// (trainer/kernels/cuda/drop_sites.h).
//
// Owns: the use of the kernel. Does not own: the draws, one place alone (dropout.h). Thread rule: any thread.
//
// Shape letters: S places, R rows, I features.
#pragma once

#include <ATen/core/TensorBody.h>

#include <vector>

#include "trainer/ops/cuda_kernels.h"
#include "trainer/ops/dropout.h"

namespace plural::trainer {

// Places of one call have the same row keys.

// Whether the two below serve: fp32 or bf16 on a GPU, or anywhere with `kernels` given; rows whose length is
// a multiple of 8; one to four places.
bool DropsTogether(const std::vector<Dropout>& places, const at::Tensor& x_RI,
                   const CudaKernels* kernels = nullptr);

// Dropped at each place, [S, R, I]; x is read once.
at::Tensor DroppedTogether(const std::vector<Dropout>& places, double p, const at::Tensor& x_RI,
                           const CudaKernels* kernels = nullptr);
// Adds Dropped of dx_SRI[s] at place s to the sum, a dense one, one after the other: the bits of as many
// calls of Dropped and add_.
void AddDropped(const at::Tensor& sum_RI, const std::vector<Dropout>& places, double p,
                const at::Tensor& dx_SRI, const CudaKernels* kernels = nullptr);

}  // namespace plural::trainer
