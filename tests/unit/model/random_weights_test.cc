#include "trainer/model/random_weights.h"

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numbers>
#include <vector>

#include "data/random.h"

namespace plural::trainer {
namespace {

constexpr std::int64_t kCount = 50001;  // several stretches of work, and half a pair

// One element after the other, as the distributions are defined.
at::Tensor InOrder(bool normal, double scale, std::uint64_t key) {
  at::Tensor values = at::empty({kCount}, at::kDouble);
  auto* value = values.mutable_data_ptr<double>();
  data::CounterRandom random{key};
  for (std::int64_t e = 0; e < kCount; ++e) {
    if (!normal) {
      value[e] = scale * (2.0 * random.Uniform() - 1.0);
      continue;
    }
    const double radius = scale * std::sqrt(-2.0 * std::log(1.0 - random.Uniform()));
    const double angle = 2.0 * std::numbers::pi * random.Uniform();
    value[e] = radius * std::cos(angle);
    if (++e < kCount) value[e] = radius * std::sin(angle);
  }
  return values;
}

TEST(RandomWeights, AnyNumberOfThreadsDrawsWhatOneDraws) {
  const int threads = at::get_num_threads();
  const std::uint64_t key = DrawsFor(3, "model.norm.weight");
  for (const at::ScalarType dtype : {at::kDouble, at::kFloat, at::kBFloat16}) {
    for (const int used : {1, 3}) {
      at::set_num_threads(used);
      const at::Tensor normal = at::empty({kCount}, dtype), uniform = at::empty({kCount}, dtype);
      FillNormal(normal, 0.02, key);
      FillUniform(uniform, 0.3, key);
      EXPECT_TRUE(at::equal(normal, InOrder(true, 0.02, key).to(dtype))) << dtype << " " << used;
      EXPECT_TRUE(at::equal(uniform, InOrder(false, 0.3, key).to(dtype))) << dtype << " " << used;
    }
  }
  at::set_num_threads(threads);
}

TEST(RandomWeights, ATensorThatIsNoWholeBlockOfMemoryTakesTheSame) {
  const at::Tensor wide = at::empty({100, 7}, at::kFloat), whole = at::empty({7, 100}, at::kFloat);
  FillNormal(wide.t(), 1.0, 5);
  FillNormal(whole, 1.0, 5);
  EXPECT_TRUE(at::equal(wide.t(), whole));
  EXPECT_NE(DrawsFor(3, "a"), DrawsFor(3, "b"));
  EXPECT_NE(DrawsFor(3, "a"), DrawsFor(4, "a"));
}

}  // namespace
}  // namespace plural::trainer
