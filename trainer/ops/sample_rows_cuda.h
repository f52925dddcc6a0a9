// Tokens drawn from rows of logits on a GPU, by the kernel of the module
// (trainer/kernels/cuda/sample_rows.cu).
//
// Owns: the use of the kernel. Does not own: what is asked of a row (generate/row_sampler.h). Thread rule:
// one thread.
#pragma once

#include <ATen/core/TensorBody.h>

#include <cstdint>
#include <vector>

#include "trainer/kernels/cuda/sample_rows_module.h"
#include "trainer/ops/cuda_kernels.h"

namespace plural::trainer {

// Not without the module, for other logits than fp32, and for a vocabulary above kSampledVocabulary.
bool SampleRowsServes(const CudaKernels* kernels, const at::Tensor& z_RV);

// Where the device has them; of SampleRowsArguments.
struct DrawsOnDevice {
  const RowOfDraws* row = nullptr;
  const double* uniform = nullptr;
  const std::int32_t* excluded = nullptr;
  std::int64_t excluded_count = 0;
  std::int64_t draws = 0;  // of all rows
};
// The results of all draws, which the host waits for. Precondition: SampleRowsServes.
std::vector<DrawnOnDevice> SampleRowsOnGpu(const at::Tensor& z_RV, const DrawsOnDevice& draws,
                                           const CudaKernels& kernels);

}  // namespace plural::trainer
