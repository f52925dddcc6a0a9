// The sums behind gradients of bf16 models, against the definition for any shape.

#include "trainer/kernels/outer_products.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "data/random.h"

namespace plural::trainer::host {
namespace {

std::vector<c10::BFloat16> Values(std::int64_t count, std::uint64_t seed) {
  data::CounterRandom random{data::MixKey(seed, data::Purpose::kInitialWeights)};
  std::vector<c10::BFloat16> values(static_cast<std::size_t>(count));
  for (c10::BFloat16& value : values) value = static_cast<float>(2.0 * random.Uniform() - 1.0);
  return values;
}

TEST(OuterProducts, EqualTheDefinitionForAnyShape) {
  for (const std::int64_t rows : {1, 2, 7, 64}) {
    for (const std::int64_t width_a : {1, 3, 4, 16, 29}) {
      for (const std::int64_t width_b : {1, 15, 16, 17, 32, 33, 70}) {
        const std::int64_t stride = width_b + 3;
        const auto a = Values(rows * width_a, 1), b = Values(rows * stride, 2);
        std::vector<float> y(static_cast<std::size_t>(width_a * stride), 7.0F);
        OuterProducts(a.data(), b.data(),
                      {.rows = rows, .width_a = width_a, .width_b = width_b, .stride = stride}, y.data());
        for (std::int64_t j = 0; j < width_a; ++j) {
          for (std::int64_t i = 0; i < stride; ++i) {
            double expected = i < width_b ? 0.0 : 7.0;  // what lies beyond is left alone
            for (std::int64_t r = 0; r < rows && i < width_b; ++r) {
              expected += static_cast<double>(a[static_cast<std::size_t>(r * width_a + j)]) *
                          static_cast<double>(b[static_cast<std::size_t>(r * stride + i)]);
            }
            // Products of two bf16 are fp32 values; their sums are at most `rows` and rounded once each.
            ASSERT_NEAR(y[static_cast<std::size_t>(j * stride + i)], expected,
                        std::numeric_limits<float>::epsilon() * static_cast<double>(rows * rows))
                << rows << " " << width_a << " " << width_b;
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace plural::trainer::host
