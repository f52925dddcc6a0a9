#include "trainer/state/optimizer.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include <cmath>
#include <stdexcept>
#include <vector>

#include "data/random.h"

namespace plural::trainer {
namespace {

// Shapes chosen so that spans need padding, blocks and vector widths do not divide, and a norm (1-D) stands
// between two matrices.
const std::vector<std::vector<std::int64_t>> kShapes = {{7, 91}, {13}, {40, 33}, {1, 1}};

dist::FlatParameters MakeParameters(at::ScalarType dtype, std::uint64_t seed) {
  std::vector<dist::NamedTensor> tensors;
  data::CounterRandom random{seed};
  for (std::size_t i = 0; i < kShapes.size(); ++i) {
    const at::Tensor tensor = at::empty(kShapes[i], dtype);
    for (std::int64_t e = 0; e < tensor.numel(); ++e) tensor.view(-1)[e].fill_(2.0 * random.Uniform() - 1.0);
    tensor.set_requires_grad(true);
    tensors.push_back({"t" + std::to_string(i), tensor});
  }
  return dist::FlatParameters(std::move(tensors));
}

// Gradients of step t: spread over ten orders of magnitude, some exactly zero.
void FillGradients(dist::FlatParameters& parameters, std::uint64_t t) {
  data::CounterRandom random{1000 + t};
  for (const auto& span : parameters.Spans()) {
    for (std::int64_t e = 0; e < span.size; ++e) {
      const double size = std::pow(10.0, -10.0 * random.Uniform());
      parameters.Gradients()[span.offset + e].fill_(random.Uniform() < 0.1 ? 0.0
                                                                           : size * (random.Uniform() - 0.5));
    }
  }
}

// One element of torch.optim.AdamW, as its documentation states the algorithm, in fp64.
struct Reference {
  double p, m = 0.0, v = 0.0;
  void Step(double g, double lr, const AdamW::Settings& s, double decay, int t) {
    p -= lr * decay * p;
    m = s.beta1 * m + (1.0 - s.beta1) * g;
    v = s.beta2 * v + (1.0 - s.beta2) * g * g;
    const double m_hat = m / (1.0 - std::pow(s.beta1, t));
    const double v_hat = v / (1.0 - std::pow(s.beta2, t));
    p -= lr * m_hat / (std::sqrt(v_hat) + s.eps);
  }
};

void ExpectFollowsFormula(at::ScalarType dtype, double tolerance) {
  const AdamW::Settings settings{.beta1 = 0.8, .beta2 = 0.95, .eps = 1e-6, .weight_decay = 0.3};
  dist::FlatParameters parameters = MakeParameters(dtype, 1);
  AdamW optimizer(parameters, settings);
  std::vector<Reference> reference;
  for (const auto& span : parameters.Spans()) {
    for (std::int64_t e = 0; e < span.size; ++e) {
      reference.push_back({parameters.Values()[span.offset + e].item<double>()});
    }
  }
  for (int t = 1; t <= 6; ++t) {
    const double lr = 0.01 * t, scale = 1.0 / t;
    FillGradients(parameters, t);
    std::size_t i = 0;
    for (const auto& span : parameters.Spans()) {
      const double decay = span.shape.size() >= 2 ? settings.weight_decay : 0.0;
      for (std::int64_t e = 0; e < span.size; ++e) {
        reference[i++].Step(scale * parameters.Gradients()[span.offset + e].item<double>(), lr, settings,
                            decay, t);
      }
    }
    optimizer.Step(parameters, lr, scale);
    EXPECT_EQ(optimizer.Updates(), t);
  }
  std::size_t i = 0;
  for (const auto& span : parameters.Spans()) {
    for (std::int64_t e = 0; e < span.size; ++e, ++i) {
      ASSERT_NEAR(parameters.Values()[span.offset + e].item<double>(), reference[i].p, tolerance)
          << span.name << "[" << e << "]";
    }
  }
}

// Six steps of at most 0.06 each, values below 2, about ten roundings a step: 6 * 10 * eps * 2.
TEST(AdamW, FollowsTheFormulaInFp64) { ExpectFollowsFormula(at::kDouble, 120 * 1.2e-16); }
TEST(AdamW, FollowsTheFormulaInFp32) { ExpectFollowsFormula(at::kFloat, 120 * 6e-8); }

// ATen's sequence is what torch.optim.AdamW (foreach=False) runs.
TEST(AdamW, SameAsTorchOperations) {
  const AdamW::Settings settings{.weight_decay = 0.01};
  dist::FlatParameters parameters = MakeParameters(at::kFloat, 2);
  AdamW optimizer(parameters, settings);
  at::Tensor p = parameters.Values().clone();
  at::Tensor m = at::zeros_like(p), v = at::zeros_like(p);
  const c10::NoGradGuard no_gradient;
  const auto& norm = parameters.Spans()[1];
  for (int t = 1; t <= 5; ++t) {
    FillGradients(parameters, t);
    const double lr = 1e-2;
    optimizer.Step(parameters, lr);
    const at::Tensor kept = p.narrow(0, norm.offset, norm.size).clone();
    p.mul_(1.0 - lr * settings.weight_decay);
    p.narrow(0, norm.offset, norm.size).copy_(kept);
    m.lerp_(parameters.Gradients(), 1.0 - settings.beta1);
    v.mul_(settings.beta2).addcmul_(parameters.Gradients(), parameters.Gradients(), 1.0 - settings.beta2);
    const double correction = std::sqrt(1.0 - std::pow(settings.beta2, t));
    p.addcdiv_(m, (v.sqrt() / correction).add_(settings.eps), -lr / (1.0 - std::pow(settings.beta1, t)));
  }
  // torch may fuse a multiply and an add where this code must not: one rounding an operation apart.
  EXPECT_TRUE(at::allclose(parameters.Values(), p, 0.0, 5 * 4 * 6e-8));
  EXPECT_TRUE(at::allclose(optimizer.SecondMoment(), v, 5 * 3 * 6e-8, 0.0));
}

TEST(AdamW, SpansMayHaveTheirOwnLearningRate) {
  // To the last bit what an optimizer with that learning rate makes of the span, decay included.
  const AdamW::Settings settings{.weight_decay = 0.3};
  const std::vector<double> scales = {10.0, 1.0, 1.0, 0.5};
  dist::FlatParameters scaled = MakeParameters(at::kDouble, 1);
  AdamW optimizer(scaled, settings, scales);
  for (std::uint64_t t = 1; t <= 5; ++t) {
    FillGradients(scaled, t);
    optimizer.Step(scaled, 1e-3, 0.7);
  }
  for (std::size_t i = 0; i < scales.size(); ++i) {
    dist::FlatParameters plain = MakeParameters(at::kDouble, 1);
    AdamW reference(plain, settings);
    for (std::uint64_t t = 1; t <= 5; ++t) {
      FillGradients(plain, t);
      reference.Step(plain, 1e-3 * scales[i], 0.7);
    }
    const auto& span = plain.Spans()[i];
    EXPECT_TRUE(at::equal(scaled.Values().narrow(0, span.offset, span.size),
                          plain.Values().narrow(0, span.offset, span.size)))
        << i;
  }
  EXPECT_THROW(AdamW(scaled, settings, {1.0}), std::logic_error);
}

TEST(AdamW, PaddingStaysZero) {
  dist::FlatParameters parameters = MakeParameters(at::kFloat, 3);
  AdamW optimizer(parameters, {.weight_decay = 0.1});
  for (int t = 1; t <= 3; ++t) {
    FillGradients(parameters, t);
    optimizer.Step(parameters, 0.1);
  }
  at::Tensor outside = at::ones_like(parameters.Values());
  for (const auto& span : parameters.Spans()) outside.narrow(0, span.offset, span.size).zero_();
  EXPECT_EQ((outside * parameters.Values()).abs().sum().item<double>(), 0.0);
}

TEST(GradientNorm, IsTheL2NormWhateverTheOrderOfMagnitude) {
  for (const auto dtype : {at::kFloat, at::kDouble}) {
    dist::FlatParameters parameters = MakeParameters(dtype, 4);
    FillGradients(parameters, 9);
    double squares = 0.0;
    for (const auto& span : parameters.Spans()) {
      for (std::int64_t e = 0; e < span.size; ++e) {
        const double g = parameters.Gradients()[span.offset + e].item<double>();
        squares += g * g;
      }
    }
    // Both sum n = 1971 positive numbers in fp64: relative n * 2^-53.
    EXPECT_NEAR(GradientNorm(parameters) / std::sqrt(squares), 1.0, 1971 * 1.2e-16);
  }
}

TEST(GradientNorm, SeesOneBadNumber) {
  dist::FlatParameters parameters = MakeParameters(at::kFloat, 5);
  FillGradients(parameters, 1);
  parameters.Gradients()[parameters.Spans()[2].offset + 17].fill_(std::nan(""));
  EXPECT_TRUE(std::isnan(GradientNorm(parameters)));
}

TEST(ClipScale, IsThatOfTorch) {
  EXPECT_EQ(ClipScale(5.0, 0.0), 1.0);
  EXPECT_EQ(ClipScale(0.5, 1.0), 1.0);
  EXPECT_DOUBLE_EQ(ClipScale(4.0, 1.0), 1.0 / (4.0 + 1e-6));
  EXPECT_EQ(ClipScale(0.0, 1.0), 1.0);
}

// Values of transformers' get_constant/linear/cosine_schedule_with_warmup(warmup 4, total 10), times 0.5.
TEST(Schedule, IsThatOfTransformers) {
  const auto rate = [](const char* kind, std::int64_t step) {
    return Schedule{kind, 0.5, 4, 10}.LearningRate(step);
  };
  for (const char* kind : {"constant", "linear", "cosine"}) {
    EXPECT_DOUBLE_EQ(rate(kind, 0), 0.0);
    EXPECT_DOUBLE_EQ(rate(kind, 3), 0.375);
    EXPECT_DOUBLE_EQ(rate(kind, 4), 0.5);
  }
  EXPECT_DOUBLE_EQ(rate("constant", 9), 0.5);
  EXPECT_DOUBLE_EQ(rate("linear", 7), 0.25);
  EXPECT_DOUBLE_EQ(rate("linear", 10), 0.0);
  EXPECT_DOUBLE_EQ(rate("cosine", 7), 0.25);
  EXPECT_DOUBLE_EQ(rate("cosine", 5), 0.5 * 0.5 * (1.0 + std::sqrt(3.0) / 2.0));
  EXPECT_DOUBLE_EQ(Schedule{.lr = 0.5}.LearningRate(0), 0.5);
}

// parity.schedule_test compares whole runs.
TEST(Schedule, EndsAtItsMinimumOrFallsWithTheRoot) {
  const Schedule cosine{"cosine_with_min_lr", 0.5, 4, 10, 0.2};
  EXPECT_DOUBLE_EQ(cosine.LearningRate(4), 0.5);
  EXPECT_DOUBLE_EQ(cosine.LearningRate(7), 0.5 * (0.5 * 0.8 + 0.2));
  EXPECT_DOUBLE_EQ(cosine.LearningRate(10), 0.1);
  const Schedule root{"inverse_sqrt", 0.5, 4, 10};
  EXPECT_DOUBLE_EQ(root.LearningRate(2), 0.25);
  EXPECT_DOUBLE_EQ(root.LearningRate(4), 0.5);
  EXPECT_DOUBLE_EQ(root.LearningRate(16), 0.25);
  EXPECT_DOUBLE_EQ((Schedule{.kind = "inverse_sqrt", .lr = 0.5}.LearningRate(10'000)), 0.5 / std::sqrt(2.0));
}

}  // namespace
}  // namespace plural::trainer
