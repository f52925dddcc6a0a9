// Inference's matrix products: against the definition, and to the bit whatever rows are beside a row.

#include "trainer/kernels/row_products.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "data/random.h"
#include "trainer/kernels/dtypes.h"

namespace plural::trainer::host {
namespace {

template <typename Real>
std::vector<Real> Values(std::size_t count, std::uint64_t seed) {
  data::CounterRandom random{data::MixKey(seed, data::Purpose::kInitialWeights)};
  std::vector<Real> values(count);
  for (Real& value : values) value = static_cast<Real>(2.0 * random.Uniform() - 1.0);
  return values;
}

template <typename Real>
class RowProductsTest : public ::testing::Test {};
using Reals = testing::Types<float, double, c10::BFloat16>;
TYPED_TEST_SUITE(RowProductsTest, Reals);

TYPED_TEST(RowProductsTest, EqualsTheDefinitionForAnyShape) {
  using Real = TypeParam;
  using Sum = Computed<Real>;
  for (const std::int64_t inputs : {1, 7, 16, 61, 160}) {
    for (const std::int64_t outputs : {1, 3, 4, 33, 70}) {
      for (const std::int64_t rows : {1, 2, 3, 4, 5, 6, 13}) {
        const auto x = Values<Real>(static_cast<std::size_t>(rows * inputs), 1);
        const auto w = Values<Real>(static_cast<std::size_t>(outputs * inputs), 2);
        const std::int64_t stride = outputs + 2;
        const auto before = Values<Sum>(static_cast<std::size_t>(rows * stride), 3);
        for (const bool add : {false, true}) {
          std::vector<Sum> y = before;
          RowProducts(x.data(), w.data(),
                      {.rows = rows, .inputs = inputs, .outputs = outputs, .y_stride = stride, .add = add},
                      y.data());
          for (std::int64_t r = 0; r < rows; ++r) {
            for (std::int64_t o = 0; o < stride; ++o) {
              const auto at = static_cast<std::size_t>(r * stride + o);
              double expected = static_cast<double>(before[at]);
              if (o < outputs) {
                if (!add) expected = 0.0;
                for (std::int64_t i = 0; i < inputs; ++i) {
                  expected += static_cast<double>(x[static_cast<std::size_t>(r * inputs + i)]) *
                              static_cast<double>(w[static_cast<std::size_t>(o * inputs + i)]);
                }
              }
              // At most inputs + 2 roundings of partial sums no larger than inputs + 1; products of two bf16
              // are fp32 values.
              const double bound = std::numeric_limits<Sum>::epsilon() * static_cast<double>(inputs + 2) *
                                   static_cast<double>(inputs + 1);
              ASSERT_NEAR(static_cast<double>(y[at]), expected, bound)
                  << inputs << " " << outputs << " " << r;
            }
          }
        }
      }
    }
  }
}

TYPED_TEST(RowProductsTest, ARowsResultDoesNotDependOnTheOthers) {
  using Real = TypeParam;
  const std::int64_t inputs = 83, outputs = 45;
  const auto x = Values<Real>(17 * static_cast<std::size_t>(inputs), 1);
  const auto w = Values<Real>(static_cast<std::size_t>(outputs * inputs), 2);
  std::vector<Computed<Real>> together(17 * static_cast<std::size_t>(outputs)),
      alone(static_cast<std::size_t>(outputs));
  RowProducts(x.data(), w.data(), {.rows = 17, .inputs = inputs, .outputs = outputs, .y_stride = outputs},
              together.data());
  for (std::int64_t r = 0; r < 17; ++r) {
    // Outputs in two parts, as two threads would compute them.
    for (const std::int64_t begin : {0, 31}) {
      RowProducts(
          x.data() + r * inputs, w.data() + begin * inputs,
          {.rows = 1, .inputs = inputs, .outputs = begin == 0 ? 31 : outputs - 31, .y_stride = outputs},
          alone.data() + begin);
    }
    for (std::int64_t o = 0; o < outputs; ++o) {
      ASSERT_EQ(alone[static_cast<std::size_t>(o)], together[static_cast<std::size_t>(r * outputs + o)]);
    }
  }
}

}  // namespace
}  // namespace plural::trainer::host
