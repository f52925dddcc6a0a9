// Products of matrices that are done tile by tile: against the definition for any shape and orientation.

#include "trainer/ops/multiply.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/matmul.h>
#include <gtest/gtest.h>

#include <limits>

#include "tests/unit/support/naive_model.h"
#include "trainer/ops/tile_multiply.h"

namespace plural::trainer {
namespace {

using testing::RandomTensor;

// Stored as its transpose.
at::Tensor Turned(const at::Tensor& x) { return x.t().contiguous().t(); }

// Sums of `terms` products of at most 1, each addition rounded once.
void ExpectSum(const at::Tensor& found, const at::Tensor& wanted, std::int64_t terms, const char* what) {
  const double allowed = std::numeric_limits<float>::epsilon() * static_cast<double>(terms * terms);
  EXPECT_LE((found.to(at::kDouble) - wanted).abs().max().item<double>(), allowed)
      << what << " " << found.size(0) << " x " << found.size(1) << " x " << terms;
}

TEST(TileMultiply, EqualsTheDefinitionForAnyShapeAndOrientation) {
  std::uint64_t key = 0;
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    for (const std::int64_t rows : {1, 17, 64, 150}) {
      for (const std::int64_t columns : {1, 3, 16, 70, 200}) {
        for (const std::int64_t depth : {1, 3, 40, 130}) {
          const at::Tensor a = RandomTensor({rows, depth}, ++key, dtype);
          const at::Tensor b = RandomTensor({depth, columns}, ++key, dtype);
          const at::Tensor wanted = at::matmul(a.to(at::kDouble), b.to(at::kDouble));
          for (const at::Tensor& left : {a, Turned(a)}) {
            for (const at::Tensor& right : {b, Turned(b)}) {
              const at::Tensor y = RandomTensor({rows, columns}, 7, at::kFloat);
              TileMultiply({{left, right}}, y);
              ExpectSum(y, wanted, depth, "one pair");
              TileMultiply({{left, right}, {left, right}}, y, true);
              ExpectSum(y, 3.0 * wanted, 3 * depth, "added twice");
            }
          }
        }
      }
    }
  }
}

// As autograd hands them over: expanded, or a slice of every other column.
TEST(TileMultiply, TakesMatricesThatAreNotDense) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const at::Tensor row = RandomTensor({1, 40}, 1, dtype).expand({70, 40});
    const at::Tensor column = RandomTensor({70, 1}, 2, dtype).expand({70, 40});
    const at::Tensor value = RandomTensor({1, 1}, 3, dtype).expand({70, 40});
    const at::Tensor gaps = RandomTensor({70, 80}, 4, dtype).slice(1, 0, 80, 2);
    const at::Tensor one_row = RandomTensor({70, 40}, 5, dtype).narrow(0, 3, 1);
    const at::Tensor one_column = RandomTensor({40, 70}, 6, dtype).narrow(1, 3, 1);
    const at::Tensor b = RandomTensor({40, 20}, 7, dtype);
    for (const at::Tensor& a : {row, column, value, gaps, one_row, one_column.t()}) {
      const at::Tensor wanted = at::matmul(a.to(at::kDouble), b.to(at::kDouble));
      const at::Tensor y = RandomTensor({a.size(0), 20}, 8, at::kFloat);
      TileMultiply({{a, b}}, y);
      ExpectSum(y, wanted, 40, "left");
      const at::Tensor turned = RandomTensor({20, a.size(0)}, 9, at::kFloat);
      TileMultiply({{b.t(), a.t()}}, turned);
      ExpectSum(turned, wanted.t(), 40, "right");
    }
  }
}

TEST(TileMultiply, OfNothingIsZero) {
  const at::Tensor y = RandomTensor({5, 7}, 1, at::kFloat);
  TileMultiply({{RandomTensor({0, 5}, 2, at::kFloat).t(), RandomTensor({0, 7}, 3, at::kFloat)}}, y);
  EXPECT_EQ(y.abs().max().item<float>(), 0.0F);
}

TEST(Multiply, SumsOfBf16AreNotRounded) {
  const at::Tensor x = RandomTensor({150, 70}, 1, at::kBFloat16),
                   w = RandomTensor({90, 70}, 2, at::kBFloat16);
  const at::Tensor t = RandomTensor({150, 5}, 3, at::kBFloat16), b = RandomTensor({90, 5}, 4, at::kBFloat16);
  const auto wide = [](const at::Tensor& v) { return v.to(at::kDouble); };
  const at::Tensor base = at::matmul(wide(x), wide(w).t());
  ExpectSum(MultiplyUnrounded(x, w), base, 70, "x W^T");
  ExpectSum(MultiplyUnrounded(x, w, t, b), base + at::matmul(wide(t), wide(b).t()), 75, "x W^T + t B^T");
  ExpectSum(MultiplyNarrow(x, w.t()), base, 70, "narrow");
  ExpectSum(SumOuterProducts(x, t), at::matmul(wide(x).t(), wide(t)), 150, "outer products");
}

}  // namespace
}  // namespace plural::trainer
