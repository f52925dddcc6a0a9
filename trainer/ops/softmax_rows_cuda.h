// Rows of logits on a GPU, one kernel each (trainer/kernels/cuda/logit_rows.cu).
//
// Owns: the use of the kernels. Does not own: what the numbers mean (softmax_rows.h). Kernels serve fp32 on a
// GPU where the module is; tests give emulated ones, `kernels`. Thread rule: any thread.
//
// Shape letters as in softmax_rows.h.
#pragma once

#include <ATen/core/TensorBody.h>

#include <optional>

#include "trainer/ops/cuda_kernels.h"

namespace plural::trainer {

// Statistics of z / temperature, all from one pass over it; fp64, the column int64.
struct StatisticsOnGpu {
  at::Tensor lse_R, entropy_nats_R;
  at::Tensor column_R, lse_of_others_R;  // of the largest logit; of all but that one
};
// Nothing where no kernel serves.
std::optional<StatisticsOnGpu> StatisticsOfRowsOnCuda(const at::Tensor& z_RV, double temperature,
                                                      const CudaKernels* kernels = nullptr);

bool RowGradientServes(const at::Tensor& z_RV, const CudaKernels* kernels = nullptr);
// z = c p, times 1 - (z / softcap)^2 where softcap > 0. Precondition: RowGradientServes.
void RowGradientOnGpu(const at::Tensor& z_RV, const at::Tensor& lse_R, const at::Tensor& c_R, double softcap,
                      const CudaKernels* kernels = nullptr);

}  // namespace plural::trainer
