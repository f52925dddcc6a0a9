#include "trainer/ops/dropout.h"

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include "data/draws.h"
#include "trainer/kernels/dropout_draws.h"
#include "trainer/ops/cuda_kernels.h"
#include "trainer/ops/kernel_operands.h"
#include "trainer/ops/to_device.h"

namespace plural::trainer {
namespace {

constexpr std::int64_t kDrawsPerThread = 4096;  // the least that are worth a thread

double Kept(double p) { return 1.0 / (1.0 - p); }

// bf16 takes fp32 factors, since 1 / 0.9 is not a bf16 value.
at::Tensor FactorsOnHost(const Dropout& dropout, double p, const at::Tensor& x_RI) {
  const bool exact = x_RI.scalar_type() == at::kDouble;
  const at::Tensor factors_RI = at::empty(x_RI.sizes(), exact ? at::kDouble : at::kFloat);
  const std::int64_t rows = x_RI.size(0), features = x_RI.size(1);
  const auto* keys = dropout.row_key_R.const_data_ptr<std::int64_t>();
  const std::uint64_t threshold = host::DropoutThreshold(p);
  AT_DISPATCH_FLOATING_TYPES(factors_RI.scalar_type(), "dropout", [&] {
    auto* out = factors_RI.mutable_data_ptr<scalar_t>();
    const auto kept = static_cast<scalar_t>(Kept(p));
    const std::int64_t rows_per_thread = kDrawsPerThread / std::max<std::int64_t>(features, 1) + 1;
    at::parallel_for(0, rows, rows_per_thread, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = begin; r < end; ++r) {
        const std::uint64_t stream = host::DropoutStream(static_cast<std::uint64_t>(keys[r]), dropout.site);
        for (std::int64_t i = 0; i < features; ++i) {
          out[r * features + i] = host::DropoutFactor(stream, static_cast<std::uint64_t>(i), threshold, kept);
        }
      }
    });
  });
  return factors_RI;
}

// Undefined where no kernel serves.
at::Tensor DroppedOnGpu(const Dropout& dropout, double p, const at::Tensor& x_RI) {
  if (!x_RI.is_cuda() || !dropout.row_key_on_gpu_R.defined() || !FindCudaKernels().dropout) return {};
  const at::Tensor x = x_RI.contiguous(), key = dropout.row_key_on_gpu_R.contiguous();
  at::Tensor out_RI = at::empty_like(x);
  StartKernel(FindCudaKernels().dropout, "plural::dropout",
              DropoutArguments{.x = x.const_data_ptr(),
                               .out = out_RI.mutable_data_ptr(),
                               .rows = x.size(0),
                               .features = x.size(1),
                               .row_key = key.const_data_ptr<std::int64_t>(),
                               .site = dropout.site,
                               .threshold = host::DropoutThreshold(p),
                               .kept = Kept(p),
                               .type = KernelTypeOf(x_RI.scalar_type())},
              x.device());
  return out_RI;
}

}  // namespace

Dropout Dropout::At(std::uint64_t part) const {
  return {row_key_R, data::MixKey(site, data::Purpose::kDropout, part), row_key_on_gpu_R};
}

Dropout Dropout::Rows(const RowNumbers& rows) const {
  if (!row_key_R.defined()) return {};
  Dropout some{row_key_R.index_select(0, ToDevice(rows.host, at::kLong, at::kCPU)), site};
  if (row_key_on_gpu_R.defined()) some.row_key_on_gpu_R = row_key_on_gpu_R.index_select(0, rows.on_device);
  return some;
}

at::Tensor Dropped(const Dropout& dropout, double p, const at::Tensor& x_RI) {
  if (at::Tensor dropped_RI = DroppedOnGpu(dropout, p, x_RI); dropped_RI.defined()) return dropped_RI;
  return (x_RI * ToDevice(FactorsOnHost(dropout, p, x_RI), x_RI.device())).to(x_RI.scalar_type());
}

}  // namespace plural::trainer
