#include "trainer/model/linear.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "data/random.h"
#include "tests/unit/support/emulated_kernels.h"
#include "tests/unit/support/naive_model.h"

namespace plural::trainer {
namespace {

using namespace testing;  // NOLINT: the test's own vocabulary

constexpr double kLinearRounding = 1e-13;  // sums of at most 9 products

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
      return Dropped(rows.At(layer), dropout, x);
    };
    const std::vector<at::Tensor> wanted = {Naive(adapted, x, dropped(0)), Naive(frozen, x, x),
                                            Naive(trained, x, dropped(2))};
    for (std::size_t l = 0; l < 3; ++l) EXPECT_LT(RelativeError(found[l], wanted[l]), kLinearRounding);
    const auto found_gradients = differentiate(found);
    const auto wanted_gradients = differentiate(wanted);
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      EXPECT_LT(RelativeError(found_gradients[i], wanted_gradients[i]), kLinearRounding) << "input " << i;
    }
  }
}

// Every value is positive, so that nothing cancels and each rounding to bf16 costs at most 2^-9 of a result.
// The longest chain is that of x's gradient: of B, dy B, its scaling, A, its product with A, the sum with the
// layer's own part, the sum with the other layer's, and the reference's.
TEST(Linear, Bf16RoundsEachProductOnceAndKeepsGradientsOfFactorsInFp32) {
  constexpr double kRoundings = 8.0 / 512.0 * 1.02;  // more than (1 + 2^-9)^8 - 1
  const auto make = [](std::int64_t out, std::uint64_t key) {
    Linear layer = MakeLinear(out, 40, 3, key);
    layer.weight_OI = layer.weight_OI.detach().abs().to(at::kBFloat16);
    layer.lora.a_KI = layer.lora.a_KI.detach().abs().to(at::kFloat).set_requires_grad(true);
    layer.lora.b_OK = layer.lora.b_OK.detach().abs().to(at::kFloat).set_requires_grad(true);
    return layer;
  };
  const auto exact = [](const Linear& layer) {
    Linear wide = layer;
    wide.weight_OI = layer.weight_OI.to(at::kDouble);
    wide.lora.a_KI = layer.lora.a_KI.to(at::kDouble);
    wide.lora.b_OK = layer.lora.b_OK.to(at::kDouble);
    return wide;
  };
  const Linear first = make(30, 10), second = make(20, 20);
  const at::Tensor x = RandomTensor({50, 40}, 1).abs().to(at::kBFloat16).set_requires_grad(true);
  const std::vector<at::Tensor> inputs = {x, first.lora.a_KI, first.lora.b_OK, second.lora.a_KI,
                                          second.lora.b_OK};
  const auto differentiate = [&](const std::vector<at::Tensor>& y) {
    at::Tensor loss = at::zeros({}, at::kDouble);
    for (std::size_t l = 0; l < y.size(); ++l) {
      const at::Tensor upstream = RandomTensor(y[l].sizes().vec(), 40 + l).abs().to(at::kBFloat16);
      loss = loss + (y[l].to(at::kDouble) * upstream).sum();
    }
    return torch::autograd::grad({loss}, inputs);
  };
  const auto worst = [](const at::Tensor& found, const at::Tensor& wanted) {
    return (found.to(at::kDouble) / wanted.to(at::kDouble) - 1.0).abs().max().item<double>();
  };
  const auto found = ForwardTogether({&first, &second}, x);
  const at::Tensor wide = x.to(at::kDouble);
  const std::vector<at::Tensor> wanted = {Naive(exact(first), wide, wide), Naive(exact(second), wide, wide)};
  for (std::size_t l = 0; l < 2; ++l) {
    EXPECT_EQ(found[l].scalar_type(), at::kBFloat16);
    EXPECT_LT(worst(found[l], wanted[l]), kRoundings);
  }
  const auto gradients = differentiate(found), wanted_gradients = differentiate(wanted);
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    EXPECT_EQ(gradients[i].scalar_type(), inputs[i].scalar_type());
    EXPECT_LT(worst(gradients[i], wanted_gradients[i]), kRoundings) << "input " << i;
  }
  const at::Tensor unrounded = first.ForwardUnrounded(x.detach());
  EXPECT_EQ(unrounded.scalar_type(), at::kFloat);
  EXPECT_LT(worst(unrounded, wanted[0]), kRoundings / 2.0);  // A, B and x A^T only
}

TEST(Linear, FrozenLayerMakesNoWeightGradient) {
  const Linear frozen = MakeLinear(4, 5, 0, 20);
  const at::Tensor x = RandomTensor({9, 5}, 1);
  EXPECT_FALSE(frozen.Forward(x).requires_grad());
  const at::Tensor y = frozen.Forward(x.set_requires_grad(true));
  y.sum().backward();
  EXPECT_FALSE(frozen.weight_OI.grad().defined());
  EXPECT_LT(RelativeError(x.grad(), frozen.weight_OI.sum(0).expand({9, 5})), kLinearRounding);
}

TEST(Linear, AnUnusedOutputSendsNothingBack) {
  const at::Tensor x = RandomTensor({9, 5}, 1).set_requires_grad(true);
  const Linear a = MakeLinear(7, 5, 2, 10), b = MakeLinear(4, 5, 2, 20);
  ForwardTogether({&a, &b}, x)[1].sum().backward();
  EXPECT_FALSE(a.lora.b_OK.grad().defined());
  EXPECT_TRUE(b.lora.b_OK.grad().defined());
}

TEST(Linear, DropoutKeepsTheMeanAndOnlyWithKeys) {
  const at::Tensor ones = at::ones({400, 50});
  const Dropout rows = RowKeys(400, 3);
  const at::Tensor factors = Dropped(rows, 0.25, ones);
  // 20,000 draws of 0 or 4/3 with deviation 0.577: five deviations of the mean are 0.0204.
  EXPECT_NEAR(factors.mean().item<double>(), 1.0, 0.0204);
  EXPECT_TRUE(at::equal(factors, Dropped(rows, 0.25, ones)));
  EXPECT_FALSE(at::equal(factors, Dropped(rows.At(1), 0.25, ones))) << "another site, other draws";
  // A row keeps its draws wherever it stands.
  const RowNumbers some({7, 3, 399}, at::kCPU);
  EXPECT_TRUE(at::equal(factors.index_select(0, some.on_device),
                        Dropped(rows.Rows(some), 0.25, ones.narrow(0, 0, 3))));
  EXPECT_TRUE(factors.eq(0.0).logical_or(factors.eq(static_cast<float>(1.0 / 0.75))).all().item<bool>());

  Linear dropping = MakeLinear(7, 5, 2, 10, 0.5);
  dropping.bias_O = RandomTensor({7}, 5);
  const at::Tensor x = RandomTensor({9, 5}, 1);
  EXPECT_LT(RelativeError(dropping.Forward(x), Naive(dropping, x, x)), kLinearRounding);
}

// Where a kernel drops the inputs of all adapters at once, and their gradients: the same bits.
TEST(Linear, AdaptersThatAreDroppedTogetherHaveTheBitsOfEachAlone) {
  const CudaKernels kernels = EmulatedKernels();
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const auto make = [&](std::int64_t out, std::uint64_t key) {
      Linear layer = MakeLinear(out, 24, 2, key, 0.3);
      layer.weight_OI = layer.weight_OI.detach().to(dtype);
      layer.lora.a_KI = layer.lora.a_KI.detach().to(at::kFloat).set_requires_grad(true);
      layer.lora.b_OK = layer.lora.b_OK.detach().to(at::kFloat).set_requires_grad(true);
      return layer;
    };
    const Linear first = make(7, 10), second = make(4, 20), third = make(5, 30);
    const at::Tensor x = RandomTensor({9, 24}, 1).to(dtype).set_requires_grad(true);
    const auto run = [&](const CudaKernels* given) {
      std::vector<at::Tensor> all = ForwardTogether({&first, &second, &third}, x, RowKeys(9, 99), given);
      at::Tensor loss = at::zeros({}, at::kFloat);
      for (std::size_t l = 0; l < 3; ++l)
        loss = loss + (all[l] * RandomTensor(all[l].sizes().vec(), 40 + l).to(dtype)).sum();
      for (const at::Tensor& gradient :
           torch::autograd::grad({loss}, {x, first.lora.a_KI, second.lora.a_KI, third.lora.b_OK})) {
        all.push_back(gradient);
      }
      return all;
    };
    const std::vector<at::Tensor> found = run(&kernels), wanted = run(nullptr);
    for (std::size_t i = 0; i < found.size(); ++i) {
      EXPECT_TRUE(at::equal(found[i], wanted[i])) << dtype << ", tensor " << i;
    }
  }
}

// The definition, in fp64; the loops and the GPU's kernel compare whole numbers.
TEST(Linear, DropoutDrawsAreThoseOfCounterRandom) {
  const Dropout rows = RowKeys(70, 11).At(5);
  for (const double p : {0.05, 0.1, 1.0 / 3.0, 0.5, 0.9999, 1e-300}) {
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kDouble}) {
      const at::Tensor x = RandomTensor({70, 129}, 7).to(dtype);
      const at::Tensor factors = at::empty({70, 129}, dtype == at::kDouble ? at::kDouble : at::kFloat);
      for (std::int64_t r = 0; r < 70; ++r) {
        data::CounterRandom random{data::MixKey(static_cast<std::uint64_t>(11 + r), data::Purpose::kDropout,
                                                data::MixKey(0, data::Purpose::kDropout, 5))};
        for (std::int64_t i = 0; i < 129; ++i)
          factors[r][i].fill_(random.Uniform() < p ? 0.0 : 1.0 / (1.0 - p));
      }
      EXPECT_TRUE(at::equal(Dropped(rows, p, x), (x * factors).to(dtype))) << p << " " << dtype;
    }
  }
}

}  // namespace
}  // namespace plural::trainer
