#include "trainer/ops/sample_rows_cuda.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <cstring>

namespace plural::trainer {

bool SampleRowsServes(const CudaKernels* kernels, const at::Tensor& z_RV) {
  return kernels != nullptr && kernels->sample_rows != nullptr && z_RV.scalar_type() == at::kFloat &&
         z_RV.is_contiguous() && z_RV.size(1) <= kSampledVocabulary;
}

std::vector<DrawnOnDevice> SampleRowsOnGpu(const at::Tensor& z_RV, const DrawsOnDevice& draws,
                                           const CudaKernels& kernels) {
  static_assert(sizeof(DrawnOnDevice) == 2 * sizeof(std::int64_t));
  const at::Tensor drawn = at::empty({draws.draws, 2}, z_RV.options().dtype(at::kLong));
  StartKernel(kernels.sample_rows, "plural::sample_rows",
              SampleRowsArguments{.z = static_cast<const float*>(z_RV.const_data_ptr()),
                                  .rows = z_RV.size(0),
                                  .count = z_RV.size(1),
                                  .row = draws.row,
                                  .uniform = draws.uniform,
                                  .excluded = draws.excluded,
                                  .excluded_count = draws.excluded_count,
                                  .drawn = static_cast<DrawnOnDevice*>(drawn.mutable_data_ptr())},
              z_RV.device());
  const at::Tensor on_host = drawn.to(at::kCPU);
  std::vector<DrawnOnDevice> results(static_cast<std::size_t>(draws.draws));
  if (draws.draws > 0) std::memcpy(results.data(), on_host.const_data_ptr<std::int64_t>(), on_host.nbytes());
  return results;
}

}  // namespace plural::trainer
