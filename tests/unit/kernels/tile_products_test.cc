// Products of tiles: kernel and loop against the definition for any shape.

#include "trainer/kernels/tile_products.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "data/random.h"
#include "trainer/kernels/dtypes.h"

namespace plural::trainer::host {
namespace {

template <class E>
std::vector<E> Values(std::int64_t count, std::uint64_t seed) {
  data::CounterRandom random{data::MixKey(seed, data::Purpose::kInitialWeights)};
  std::vector<E> values(static_cast<std::size_t>(count));
  for (E& value : values) value = static_cast<E>(2.0 * random.Uniform() - 1.0);
  return values;
}

// Of E in pairs: where B's value [i, column] lies.
template <class E>
std::size_t At(const TileShape& shape, std::int64_t i, std::int64_t column) {
  const bool pairs = std::is_same_v<E, c10::BFloat16>;
  return static_cast<std::size_t>(pairs ? i / 2 * 2 * shape.b_stride + 2 * column + i % 2
                                        : i * shape.b_stride + column);
}

template <class E, class Product>
void ExpectDefinition(const Product& product) {
  using T = Computed<E>;
  for (const std::int64_t rows : {1, 3, 16, 37, 64}) {
    for (const std::int64_t columns : {1, 16, 33, 64}) {
      for (const std::int64_t depth : {2, 16, 34, 128}) {
        for (const bool add : {false, true}) {
          const TileShape shape = {.rows = rows,
                                   .columns = columns,
                                   .depth = depth,
                                   .a_stride = depth + 2,
                                   .b_stride = columns + 3,
                                   .c_stride = columns + 1,
                                   .add = add};
          const auto a = Values<E>(rows * shape.a_stride, 1), b = Values<E>(depth * shape.b_stride, 2);
          const auto before = Values<T>(rows * shape.c_stride, 3);
          auto c = before;
          product(a.data(), b.data(), shape, c.data());
          for (std::int64_t r = 0; r < rows; ++r) {
            for (std::int64_t column = 0; column < shape.c_stride; ++column) {
              const auto at = static_cast<std::size_t>(r * shape.c_stride + column);
              double wanted = add || column >= columns ? static_cast<double>(before[at]) : 0.0;
              for (std::int64_t i = 0; i < depth && column < columns; ++i) {
                wanted += static_cast<double>(a[static_cast<std::size_t>(r * shape.a_stride + i)]) *
                          static_cast<double>(b[At<E>(shape, i, column)]);
              }
              // depth + 1 terms of at most 1, each sum rounded once.
              const auto terms = static_cast<double>(depth + 1);
              ASSERT_NEAR(c[at], wanted, std::numeric_limits<T>::epsilon() * terms * terms)
                  << rows << " x " << columns << " x " << depth << (add ? ", added" : "");
            }
          }
        }
      }
    }
  }
  ReleaseTileRegisters();
}

template <class E>
class TileProductsTest : public ::testing::Test {};
using Stored = testing::Types<float, double, c10::BFloat16>;
TYPED_TEST_SUITE(TileProductsTest, Stored);

TYPED_TEST(TileProductsTest, EqualTheDefinitionForAnyShape) {
  ExpectDefinition<TypeParam>([](auto... in) { TileProduct(in...); });
}

TYPED_TEST(TileProductsTest, LoopsDoSoToo) {
  if constexpr (!std::is_same_v<TypeParam, double>) {
    ExpectDefinition<TypeParam>([](auto... in) { TileProductLoop(in...); });
  }
}

}  // namespace
}  // namespace plural::trainer::host
