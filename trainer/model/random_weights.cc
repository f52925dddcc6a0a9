#include "trainer/model/random_weights.h"

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/core/GradMode.h>

#include <cmath>
#include <numbers>

#include "data/random.h"

namespace plural::trainer {
namespace {

constexpr std::int64_t kPairsPerThread = 4096;  // the least that are worth a thread

// draw(p, pair) sets the values of elements 2 p and 2 p + 1.
template <class Draw>
void FillPairs(const at::Tensor& tensor, const Draw& draw) {
  if (tensor.is_meta()) return;
  const c10::AutoGradMode no_grad(false);
  const bool in_place = tensor.is_cpu() && tensor.is_contiguous();
  const at::Tensor host =
      in_place ? tensor : at::empty(tensor.sizes(), at::TensorOptions().dtype(tensor.scalar_type()));
  const std::int64_t count = host.numel();
  AT_DISPATCH_FLOATING_TYPES_AND(at::kBFloat16, host.scalar_type(), "random weights", [&] {
    auto* values = host.mutable_data_ptr<scalar_t>();
    at::parallel_for(0, (count + 1) / 2, kPairsPerThread, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t p = begin; p < end; ++p) {
        double pair[2];
        draw(static_cast<std::uint64_t>(p), pair);
        values[2 * p] = static_cast<scalar_t>(pair[0]);
        if (2 * p + 1 < count) values[2 * p + 1] = static_cast<scalar_t>(pair[1]);
      }
    });
  });
  if (!in_place) tensor.copy_(host);
}

}  // namespace

std::uint64_t DrawsFor(std::uint64_t seed, const std::string& name) {
  return data::MixKey(seed, data::Purpose::kInitialWeights, data::HashName(name));
}

void FillUniform(const at::Tensor& tensor, double bound, std::uint64_t key) {
  FillPairs(tensor, [=](std::uint64_t p, double* pair) {
    data::CounterRandom random{key, 2 * p};
    pair[0] = bound * (2.0 * random.Uniform() - 1.0);
    pair[1] = bound * (2.0 * random.Uniform() - 1.0);
  });
}

void FillNormal(const at::Tensor& tensor, double stddev, std::uint64_t key) {
  FillPairs(tensor, [=](std::uint64_t p, double* pair) {
    data::CounterRandom random{key, 2 * p};
    // Box and Muller; 1 - u is in (0, 1].
    const double radius = stddev * std::sqrt(-2.0 * std::log(1.0 - random.Uniform()));
    const double angle = 2.0 * std::numbers::pi * random.Uniform();
    pair[0] = radius * std::cos(angle);
    pair[1] = radius * std::sin(angle);
  });
}

}  // namespace plural::trainer
