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

const double* DoublesOrNull(const at::Tensor& values_R) {
  return values_R.defined() ? values_R.const_data_ptr<double>() : nullptr;
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

void RowGradientOnGpu(const at::Tensor& z_RV, const DenseTerms& terms, double softcap,
                      const CudaKernels* given) {
  const at::Tensor lse_R = terms.lse_R.contiguous(), c_R = terms.c_R.contiguous();
  const at::Tensor h_R = terms.h_R.defined() ? terms.h_R.contiguous() : at::Tensor();
  const at::Tensor entropy_R = terms.h_R.defined() ? terms.entropy_nats_R.contiguous() : at::Tensor();
  StartKernel(KernelsOfRows(z_RV, given)->row_gradient, "plural::row_gradient",
              RowGradientArguments{.z = z_RV.mutable_data_ptr<float>(),
                                   .rows = z_RV.size(0),
                                   .count = z_RV.size(1),
                                   .lse = DoublesOrNull(lse_R),
                                   .entropy_nats = DoublesOrNull(entropy_R),
                                   .c = DoublesOrNull(c_R),
                                   .h = DoublesOrNull(h_R),
                                   .softcap = static_cast<float>(softcap)},
              z_RV.device());
}

}  // namespace plural::trainer
