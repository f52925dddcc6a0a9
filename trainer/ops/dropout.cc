#include "trainer/ops/dropout.h"

#include <ATen/Dispatch.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include "data/random.h"
#include "trainer/ops/to_device.h"

namespace plural::trainer {

Dropout Dropout::At(std::uint64_t part) const {
  return {row_key_R, data::MixKey(site, data::Purpose::kDropout, part)};
}

Dropout Dropout::Rows(const std::vector<std::int64_t>& rows) const {
  if (!row_key_R.defined()) return {};
  return {row_key_R.index_select(0, ToDevice(rows, at::kLong, at::kCPU)), site};
}

at::Tensor Dropped(const Dropout& dropout, double p, const at::Tensor& x_RI) {
  // bf16 takes fp32 factors, since 1 / 0.9 is not a bf16 value.
  const bool exact = x_RI.scalar_type() == at::kDouble;
  const at::Tensor factors_RI = at::empty(x_RI.sizes(), exact ? at::kDouble : at::kFloat);
  const std::int64_t rows = x_RI.size(0), features = x_RI.size(1);
  const auto* keys = dropout.row_key_R.const_data_ptr<std::int64_t>();
  const double kept = 1.0 / (1.0 - p);
  AT_DISPATCH_FLOATING_TYPES(factors_RI.scalar_type(), "dropout", [&] {
    auto* out = factors_RI.data_ptr<scalar_t>();
    for (std::int64_t r = 0; r < rows; ++r) {
      data::CounterRandom random{
          data::MixKey(static_cast<std::uint64_t>(keys[r]), data::Purpose::kDropout, dropout.site)};
      for (std::int64_t i = 0; i < features; ++i) {
        *out++ = static_cast<scalar_t>(random.Uniform() < p ? 0.0 : kept);
      }
    }
  });
  return (x_RI * ToDevice(factors_RI, x_RI.device())).to(x_RI.scalar_type());
}

}  // namespace plural::trainer
