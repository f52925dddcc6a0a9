#include "trainer/model/random_weights.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/core/GradMode.h>

#include <cmath>
#include <numbers>

namespace plural::trainer {

data::CounterRandom DrawsFor(std::uint64_t seed, const std::string& name) {
  return {data::MixKey(seed, data::Purpose::kInitialWeights, data::HashName(name))};
}

void Fill(const at::Tensor& tensor, const std::function<double()>& draw) {
  const at::Tensor host = at::empty(tensor.sizes(), at::kDouble);
  auto* values = host.mutable_data_ptr<double>();
  for (std::int64_t e = 0; e < host.numel(); ++e) values[e] = draw();
  const c10::AutoGradMode no_grad(false);
  tensor.copy_(host);
}

void FillNormal(const at::Tensor& tensor, double stddev, data::CounterRandom random) {
  Fill(tensor, [&random, stddev, spare = 0.0, has_spare = false]() mutable {
    if (has_spare) {
      has_spare = false;
      return spare;
    }
    // Box and Muller; 1 - u is in (0, 1].
    const double radius = stddev * std::sqrt(-2.0 * std::log(1.0 - random.Uniform()));
    const double angle = 2.0 * std::numbers::pi * random.Uniform();
    spare = radius * std::sin(angle);
    has_spare = true;
    return radius * std::cos(angle);
  });
}

}  // namespace plural::trainer
