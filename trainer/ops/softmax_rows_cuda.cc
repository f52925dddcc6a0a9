#include "trainer/ops/softmax_rows_cuda.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include <cstdint>

namespace plural::trainer {
namespace {

const CudaKernels* KernelsOfRows(const at::Tensor& z_RV, const CudaKernels* given) {
  if (z_RV.scalar_type() != at::kFloat || !z_RV.is_contiguous()) return nullptr;
  return &KernelsFor(z_RV, given);
}

}  // namespace

std::optional<StatisticsOnGpu> StatisticsOfRowsOnCuda(const at::Tensor& z_RV, double temperature,
                                                      const CudaKernels* given) {
  const CudaKernels* const kernels = KernelsOfRows(z_RV, given);
  if (kernels == nullptr || kernels->row_statistics == nullptr) return std::nullopt;
  StatisticsOnGpu made;
  made.lse_R = at::empty({z_RV.size(0)}, z_RV.options().dtype(at::kDouble));
  made.entropy_nats_R = at::empty_like(made.lse_R);
  made.lse_of_others_R = at::empty_like(made.lse_R);
  made.column_R = at::empty({z_RV.size(0)}, z_RV.options().dtype(at::kLong));
  StartKernel(kernels->row_statistics, "plural::row_statistics",
              RowStatisticsArguments{.z = z_RV.const_data_ptr<float>(),
                                     .rows = z_RV.size(0),
                                     .count = z_RV.size(1),
                                     .inverse_temperature = static_cast<float>(1.0 / temperature),
                                     .lse = made.lse_R.mutable_data_ptr<double>(),
                                     .entropy_nats = made.entropy_nats_R.mutable_data_ptr<double>(),
                                     .lse_of_others = made.lse_of_others_R.mutable_data_ptr<double>(),
                                     .column = made.column_R.mutable_data_ptr<std::int64_t>()},
              z_RV.device());
  return made;
}

bool RowGradientServes(const at::Tensor& z_RV, const CudaKernels* given) {
  const CudaKernels* const kernels = KernelsOfRows(z_RV, given);
  return kernels != nullptr && kernels->row_gradient != nullptr;
}

void RowGradientOnGpu(const at::Tensor& z_RV, const at::Tensor& lse_R, const at::Tensor& c_R, double softcap,
                      const CudaKernels* given) {
  const at::Tensor lse = lse_R.contiguous(), c = c_R.contiguous();
  StartKernel(KernelsOfRows(z_RV, given)->row_gradient, "plural::row_gradient",
              RowGradientArguments{.z = z_RV.mutable_data_ptr<float>(),
                                   .rows = z_RV.size(0),
                                   .count = z_RV.size(1),
                                   .lse = lse.const_data_ptr<double>(),
                                   .c = c.const_data_ptr<double>(),
                                   .softcap = static_cast<float>(softcap)},
              z_RV.device());
}

}  // namespace plural::trainer
