#include "trainer/model/linear.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "tests/unit/trainer/naive_model.h"

namespace plural::trainer {
namespace {

using namespace testing;  // NOLINT: the test's own vocabulary

constexpr double kRounding = 1e-13;  // sums of at most 9 products

Linear MakeLinear(std::int64_t out, std::int64_t in, std::int64_t rank, std::uint64_t key,
                  double dropout = 0.0) {
  Linear linear;
  linear.weight_OI = RandomTensor({out, in}, key);
  if (rank > 0) {
    linear.lora = {RandomTensor({rank, in}, key + 1).set_requires_grad(true),
                   RandomTensor({out, rank}, key + 2).set_requires_grad(true), 0.7, dropout};
  }
  return linear;
}

Dropout RowKeys(std::int64_t rows, std::int64_t first) {
  return {at::arange(first, first + rows, at::kLong)};
}

at::Tensor Naive(const Linear& linear, const at::Tensor& x, const at::Tensor& dropped) {
  at::Tensor y = at::matmul(x, linear.weight_OI.t());
  if (linear.bias_O.defined()) y = y + linear.bias_O;
  if (linear.HasLora()) {
    y = y + linear.lora.scale * at::matmul(at::matmul(dropped, linear.lora.a_KI.t()), linear.lora.b_OK.t());
  }
  return y;
}

TEST(Linear, TogetherEqualsEachAloneWithAllGradients) {
  const Dropout rows = RowKeys(9, 99);
  for (const double dropout : {0.0, 0.4}) {
    const at::Tensor x = RandomTensor({9, 5}, 1).set_requires_grad(true);
    Linear adapted = MakeLinear(7, 5, 2, 10, dropout);
    const Linear frozen = MakeLinear(4, 5, 0, 20);
    Linear trained = MakeLinear(3, 5, 2, 30, dropout);
    trained.weight_OI.set_requires_grad(true);
    adapted.bias_O = RandomTensor({7}, 33);
    trained.bias_O = RandomTensor({3}, 34).set_requires_grad(true);
    const std::vector<at::Tensor> inputs = {x,
                                            adapted.lora.a_KI,
                                            adapted.lora.b_OK,
                                            trained.weight_OI,
                                            trained.bias_O,
                                            trained.lora.a_KI,
                                            trained.lora.b_OK};
    const auto differentiate = [&](const std::vector<at::Tensor>& y) {
      at::Tensor loss = at::zeros({}, at::kDouble);
      for (std::size_t l = 0; l < y.size(); ++l)
        loss = loss + (y[l] * RandomTensor(y[l].sizes().vec(), 40 + l)).sum();
      return torch::autograd::grad({loss}, inputs);
    };
    const auto found = ForwardTogether({&adapted, &frozen, &trained}, x, rows);
    const auto dropped = [&](std::uint64_t layer) {
      if (dropout == 0.0) return x;
      return x * DropoutFactors(rows.At(layer), dropout, x.detach());
    };
    const std::vector<at::Tensor> wanted = {Naive(adapted, x, dropped(0)), Naive(frozen, x, x),
                                            Naive(trained, x, dropped(2))};
    for (std::size_t l = 0; l < 3; ++l) EXPECT_LT(RelativeError(found[l], wanted[l]), kRounding);
    const auto found_gradients = differentiate(found);
    const auto wanted_gradients = differentiate(wanted);
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      EXPECT_LT(RelativeError(found_gradients[i], wanted_gradients[i]), kRounding) << "input " << i;
    }
  }
}

TEST(Linear, FrozenLayerMakesNoWeightGradient) {
  const Linear frozen = MakeLinear(4, 5, 0, 20);
  const at::Tensor x = RandomTensor({9, 5}, 1);
  EXPECT_FALSE(frozen.Forward(x).requires_grad());
  const at::Tensor y = frozen.Forward(x.set_requires_grad(true));
  y.sum().backward();
  EXPECT_FALSE(frozen.weight_OI.grad().defined());
  EXPECT_LT(RelativeError(x.grad(), frozen.weight_OI.sum(0).expand({9, 5})), kRounding);
}

TEST(Linear, AnUnusedOutputSendsNothingBack) {
  const at::Tensor x = RandomTensor({9, 5}, 1).set_requires_grad(true);
  const Linear a = MakeLinear(7, 5, 2, 10), b = MakeLinear(4, 5, 2, 20);
  ForwardTogether({&a, &b}, x)[1].sum().backward();
  EXPECT_FALSE(a.lora.b_OK.grad().defined());
  EXPECT_TRUE(b.lora.b_OK.grad().defined());
}

TEST(Linear, DropoutKeepsTheMeanAndOnlyWithKeys) {
  const at::Tensor like = at::empty({400, 50});
  const Dropout rows = RowKeys(400, 3);
  const at::Tensor factors = DropoutFactors(rows, 0.25, like);
  // 20,000 draws of 0 or 4/3 with deviation 0.577: five deviations of the mean are 0.0204.
  EXPECT_NEAR(factors.mean().item<double>(), 1.0, 0.0204);
  EXPECT_TRUE(at::equal(factors, DropoutFactors(rows, 0.25, like)));
  EXPECT_FALSE(at::equal(factors, DropoutFactors(rows.At(1), 0.25, like))) << "another site, other draws";
  // A row keeps its draws wherever it stands.
  const at::Tensor some = at::tensor({7, 3, 399}, at::kLong);
  EXPECT_TRUE(
      at::equal(factors.index_select(0, some), DropoutFactors(rows.Rows(some), 0.25, like.narrow(0, 0, 3))));
  EXPECT_TRUE(factors.eq(0.0).logical_or(factors.eq(static_cast<float>(1.0 / 0.75))).all().item<bool>());

  Linear dropping = MakeLinear(7, 5, 2, 10, 0.5);
  dropping.bias_O = RandomTensor({7}, 5);
  const at::Tensor x = RandomTensor({9, 5}, 1);
  EXPECT_LT(RelativeError(dropping.Forward(x), Naive(dropping, x, x)), kRounding);
}

}  // namespace
}  // namespace plural::trainer
