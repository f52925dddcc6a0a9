#include "trainer/kernels/dropout_draws.h"

#include <gtest/gtest.h>

#include <cmath>

#include "data/random.h"

namespace plural::trainer {
namespace {

// The kernel on a GPU compiles this same function; here it is compared with the draws' definition.
TEST(DropoutDraws, AreTheDefinitionsToTheLastDraw) {
  const std::uint64_t stream = host::DropoutStream(17, 4);
  for (double p : {0.0, 0x1p-53, 1e-9, 0.05, 0.1, 0.3, 0.5, 0.75, std::nextafter(1.0, 0.0)}) {
    data::CounterRandom random{data::MixKey(17, data::Purpose::kDropout, 4)};
    for (std::uint64_t i = 0; i < 3000; ++i) {
      const double expected = random.Uniform() < p ? 0.0 : 2.0;
      ASSERT_EQ(host::DropoutFactor(stream, i, host::DropoutThreshold(p), 2.0), expected) << p << " " << i;
    }
  }
}

// Where p is the very value of a draw: it is kept, and dropped with the next larger p.
TEST(DropoutDraws, ADrawEqualToTheProbabilityIsKept) {
  data::CounterRandom random{9};
  for (std::uint64_t i = 0; i < 3000; ++i) {
    const double p = random.Uniform();
    EXPECT_EQ(host::DropoutFactor(9, i, host::DropoutThreshold(p), 1.0F), 1.0F);
    EXPECT_EQ(host::DropoutFactor(9, i, host::DropoutThreshold(std::nextafter(p, 1.0)), 1.0F), 0.0F);
  }
}

}  // namespace
}  // namespace plural::trainer
