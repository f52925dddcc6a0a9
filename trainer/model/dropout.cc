#include "trainer/model/dropout.h"

#include <ATen/Dispatch.h>
#include <ATen/ops/empty.h>

#include "data/random.h"

namespace plural::trainer {

Dropout Dropout::At(std::uint64_t part) const {
  return {row_key_R, data::MixKey(site, data::Purpose::kDropout, part)};
}

Dropout Dropout::Rows(const at::Tensor& rows_S) const {
  if (!row_key_R.defined()) return {};
  return {row_key_R.index_select(0, rows_S.cpu()), site};
}

at::Tensor DropoutFactors(const Dropout& dropout, double p, const at::Tensor& like_RI) {
  const at::Tensor factors_RI = at::empty(like_RI.sizes(), like_RI.options().device(at::kCPU));
  const std::int64_t rows = like_RI.size(0), features = like_RI.size(1);
  const auto* keys = dropout.row_key_R.const_data_ptr<std::int64_t>();
  const double kept = 1.0 / (1.0 - p);
  AT_DISPATCH_FLOATING_TYPES(factors_RI.scalar_type(), "DropoutFactors", [&] {
    auto* out = factors_RI.data_ptr<scalar_t>();
    for (std::int64_t r = 0; r < rows; ++r) {
      data::CounterRandom random{
          data::MixKey(static_cast<std::uint64_t>(keys[r]), data::Purpose::kDropout, dropout.site)};
      for (std::int64_t i = 0; i < features; ++i) {
        *out++ = static_cast<scalar_t>(random.Uniform() < p ? 0.0 : kept);
      }
    }
  });
  return factors_RI.to(like_RI.device());
}

}  // namespace plural::trainer
