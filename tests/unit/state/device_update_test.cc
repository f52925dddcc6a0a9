#include "trainer/state/device_update.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "dist/flat_parameters.h"
#include "tests/unit/support/emulated_kernels.h"
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

AdamWScalars<double> ScalarsOf(const AdamW::Settings& s, double lr, double scale, int t) {
  return {.gradient_scale = scale,
          .decay = 1.0 - lr * s.weight_decay,
          .one_minus_beta1 = 1.0 - s.beta1,
          .beta2 = s.beta2,
          .one_minus_beta2 = 1.0 - s.beta2,
          .correction2_sqrt = std::sqrt(1.0 - std::pow(s.beta2, t)),
          .eps = s.eps,
          .step_size = lr / (1.0 - std::pow(s.beta1, t))};
}

// The kernel's own source, run by an emulation of blocks of GPU threads, against the CPU's loop.
TEST(DeviceUpdate, TheKernelHasTheBitsOfTheCpu) {
  const CudaKernels kernels = testing::EmulatedKernels();
  const AdamW::Settings settings{.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0.1};
  for (const at::ScalarType dtype : {at::kFloat, at::kDouble}) {
    at::Tensor weight = Drawn(3).values.to(dtype).view({50, 100}).set_requires_grad(true);
    dist::FlatParameters parameters({{"w", weight}});
    AdamW optimizer(parameters, settings);
    // As a shard has them: elsewhere in buffers of their own, whose places are no multiple of 16 bytes.
    const std::int64_t begin = 7, size = 4001;
    const auto moved = [&](std::int64_t gap) {
      return at::zeros({gap + size}, weight.options().requires_grad(false)).narrow(0, gap, size);
    };
    const AdamWBuffers kernel{moved(1), moved(2), moved(3), moved(5)};
    kernel.values.copy_(parameters.Values().narrow(0, begin, size));
    for (int t = 1; t <= 5; ++t) {
      const at::Tensor drawn = Drawn(10 + static_cast<std::uint64_t>(t)).gradients.to(dtype);
      drawn.narrow(0, 0, 100).zero_();
      drawn.narrow(0, 100, 100).mul_(std::numeric_limits<float>::min());  // some too small to be normal
      drawn.narrow(0, 200, 100).mul_(1e15);
      parameters.Gradients().narrow(0, 0, kSize).copy_(drawn);
      kernel.gradients.copy_(drawn.narrow(0, begin, size));
      const double lr = 0.01 * t, scale = 1.0 / t;
      optimizer.Step(parameters, lr, scale);
      ASSERT_TRUE(UpdateByKernel(kernel, ScalarsOf(settings, lr, scale, t), &kernels));
      const auto same = [&](const at::Tensor& found, const at::Tensor& wanted) {
        EXPECT_TRUE(at::equal(found, wanted.narrow(0, begin, size))) << dtype << ", step " << t;
      };
      same(kernel.values, parameters.Values());
      same(kernel.first_moment, optimizer.FirstMoment());
      same(kernel.second_moment, optimizer.SecondMoment());
    }
  }
}

TEST(DeviceUpdate, TheKernelLeavesWhatItDoesNotServe) {
  const AdamWBuffers buffers = Drawn(1);
  EXPECT_FALSE(UpdateByKernel(buffers, kScalars));  // on the CPU, with none given
  const CudaKernels without = WithoutKernels(testing::EmulatedKernels(), "adamw");
  EXPECT_FALSE(UpdateByKernel(buffers, kScalars, &without));
  EXPECT_TRUE(at::equal(buffers.values, Drawn(1).values));
}

}  // namespace
}  // namespace plural::trainer
