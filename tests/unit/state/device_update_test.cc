#include "trainer/state/device_update.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include <cmath>

#include "dist/flat_parameters.h"
#include "trainer/state/optimizer.h"

namespace plural::trainer {
namespace {

constexpr std::int64_t kSize = 5000;

AdamWBuffers Drawn(std::uint64_t seed) {
  const auto generator = at::detail::createCPUGenerator(seed);
  const auto draw = [&] { return at::randn({kSize}, generator, at::kFloat); };
  return {draw(), draw(), draw(), draw().square_()};
}

constexpr AdamWScalars<double> kScalars{.gradient_scale = 0.3,
                                        .decay = 0.99,
                                        .one_minus_beta1 = 0.1,
                                        .beta2 = 0.95,
                                        .one_minus_beta2 = 0.05,
                                        .correction2_sqrt = 0.4,
                                        .eps = 1e-8,
                                        .step_size = 0.02};

// Pieces of whole vectors, so that the CPU's operators take the same instructions for each element.
TEST(DeviceUpdate, PiecesChangeNoBitAndNothingOutsideTheRange) {
  const AdamWBuffers whole = Drawn(1), pieces = Drawn(1), before = Drawn(1);
  UpdateByOperators(whole, 256, 4000, kScalars);
  UpdateByOperators(pieces, 256, 4000, kScalars, 1024);
  for (const auto member :
       {&AdamWBuffers::values, &AdamWBuffers::first_moment, &AdamWBuffers::second_moment}) {
    EXPECT_TRUE(at::equal(whole.*member, pieces.*member));
    EXPECT_TRUE(at::equal((pieces.*member).narrow(0, 0, 256), (before.*member).narrow(0, 0, 256)));
    EXPECT_TRUE(at::equal((pieces.*member).narrow(0, 4256, 744), (before.*member).narrow(0, 4256, 744)));
    EXPECT_FALSE(at::equal((pieces.*member).narrow(0, 4000, 256), (before.*member).narrow(0, 4000, 256)));
  }
  EXPECT_TRUE(at::equal(pieces.gradients, before.gradients));
}

// The device's way and the CPU's loops are one formula: a rounding an operation apart, some ten operations.
TEST(DeviceUpdate, IsTheUpdateOfTheCpu) {
  const AdamWBuffers device = Drawn(2);
  at::Tensor tensor = Drawn(2).values.clone().view({50, 100}).set_requires_grad(true);
  dist::FlatParameters parameters({{"w", tensor}});
  parameters.Gradients().narrow(0, 0, kSize).copy_(device.gradients);
  AdamW optimizer(parameters, {.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0.5});
  device.first_moment.zero_();
  device.second_moment.zero_();
  optimizer.Step(parameters, 0.02, 0.3);
  UpdateByOperators(device, 0, kSize,
                    {.gradient_scale = 0.3,
                     .decay = 1.0 - 0.02 * 0.5,
                     .one_minus_beta1 = 1.0 - 0.9,
                     .beta2 = 0.95,
                     .one_minus_beta2 = 1.0 - 0.95,
                     .correction2_sqrt = std::sqrt(1.0 - 0.95),
                     .eps = 1e-8,
                     .step_size = 0.02 / (1.0 - 0.9)},
                    512);
  EXPECT_TRUE(at::allclose(device.values, parameters.Values().narrow(0, 0, kSize), 10 * 6e-8, 10 * 6e-8));
  EXPECT_TRUE(
      at::allclose(device.second_moment, optimizer.SecondMoment().narrow(0, 0, kSize), 10 * 6e-8, 0.0));
}

}  // namespace
}  // namespace plural::trainer
