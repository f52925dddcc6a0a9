// bf16: what is stored in which dtype, and how far loss and gradients are from those of the same values in
// fp64.
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "data/rows.h"
#include "dist/flat_parameters.h"
#include "tests/unit/support/random_groups.h"
#include "tests/unit/support/tiny_decoder.h"
#include "trainer/method/objective.h"

namespace plural::trainer {
namespace {

using data::Layout;

// The model of `bf16` in fp64: every value that it stores, as it stores it.
Decoder InFp64(const Decoder& bf16, const testing::TinyOptions& options) {
  Decoder exact = testing::TinyDecoder(options, at::kDouble);
  const c10::NoGradGuard no_grad;
  const auto copy = [](const std::vector<dist::NamedTensor>& from, const std::vector<dist::NamedTensor>& to) {
    ASSERT_EQ(from.size(), to.size());
    for (std::size_t i = 0; i < from.size(); ++i) at::Tensor(to[i].tensor).copy_(from[i].tensor);
  };
  copy(bf16.BaseParameters(), exact.BaseParameters());
  copy(bf16.AdapterParameters(), exact.AdapterParameters());
  return exact;
}

std::vector<data::LabelledGroup> Groups(std::uint64_t seed) {
  std::vector<data::LabelledGroup> groups;
  for (std::uint64_t g = 0; g < 3; ++g) {
    groups.push_back(data::testing::MakeRandomCase(seed * 3 + g, "peft").labelled);
  }
  return groups;
}

struct Outcome {
  double loss = 0.0;
  std::map<std::string, at::Tensor> gradients;
};

Outcome Train(const Decoder& model, std::uint64_t seed, const data::PackSettings& pack) {
  for (const auto& [name, tensor] : model.TrainableParameters()) tensor.mutable_grad() = at::Tensor();
  Outcome outcome;
  for (const data::RowPass& pass : data::PackGroups(Groups(seed), pack, 1.0)) {
    const PassResult result = RunPass(model, pass, {});
    result.loss.backward();
    outcome.loss += result.loss.item<double>();
  }
  for (const auto& [name, tensor] : model.TrainableParameters()) {
    if (tensor.grad().defined()) outcome.gradients[name] = tensor.grad().to(at::kDouble);
  }
  return outcome;
}

// Squares of differences and of what is differed from, over all gradients.
struct Distance {
  double squares = 0.0, of = 0.0;
  void Add(const Outcome& found, const Outcome& exact) {
    for (const auto& [name, gradient] : exact.gradients) {
      squares += (found.gradients.at(name) - gradient).square().sum().item<double>();
      of += gradient.square().sum().item<double>();
    }
  }
  double Relative() const { return std::sqrt(squares / of); }
};

TEST(Bf16, TreeIsAsNearToFp64AsPlain) {
  for (const bool lora : {true, false}) {
    Distance tree, plain;
    for (std::uint64_t seed = 0; seed < 20; ++seed) {
      const testing::TinyOptions options{.lora = lora, .rich = seed % 2 == 1};
      const Decoder model = testing::TinyDecoder(options, at::kBFloat16);
      const Outcome exact = Train(InFp64(model, options), seed, {});
      tree.Add(Train(model, seed, {}), exact);
      plain.Add(Train(model, seed, {.layout = Layout::kPlain}), exact);
    }
    // Both layouts round the same products, independently where their kernels differ, so their errors are
    // draws of one size. A gradient of these models has some 30 roundings on its way through two layers, of
    // at most 2^-9 each, which add up linearly at worst.
    EXPECT_LT(tree.Relative(), 30.0 / 512.0) << lora;
    EXPECT_LT(tree.Relative(), 1.25 * plain.Relative()) << lora;
    EXPECT_GT(tree.Relative(), 1e-4) << "this is not bf16";
  }
}

// Sums over rows are fp32, so packing groups together, or each alone, changes their last bits only. Now and
// then that moves an activation to its neighbour in bf16, 2^-8 away, but not every one: together less than
// one rounding to bf16 of everything.
TEST(Bf16, PackingChangesLessThanOneRounding) {
  for (std::uint64_t seed = 0; seed < 10; ++seed) {
    const Decoder model = testing::TinyDecoder({.lora = seed % 2 == 0}, at::kBFloat16);
    const Outcome together = Train(model, seed, {.row_budget = 1 << 20});
    const Outcome apart = Train(model, seed, {.row_budget = 1});
    EXPECT_NEAR(together.loss, apart.loss, std::abs(apart.loss) / 512.0);
    Distance distance;
    distance.Add(together, apart);
    EXPECT_LT(distance.Relative(), 1.0 / 512.0);
  }
}

TEST(Bf16, TrainedParametersAndTheirGradientsAreFp32) {
  for (const bool lora : {true, false}) {
    const Decoder model = testing::TinyDecoder({.lora = lora}, at::kBFloat16);
    EXPECT_EQ(model.DType(), at::kBFloat16);
    for (const auto& [name, tensor] : model.TrainableParameters()) {
      EXPECT_EQ(tensor.scalar_type(), at::kFloat) << name;
    }
    if (lora) {
      for (const auto& [name, tensor] : model.BaseParameters()) {
        EXPECT_EQ(tensor.scalar_type(), at::kBFloat16) << name;
      }
    }
    const dist::FlatParameters flat(model.TrainableParameters());
    Train(model, 1, {});
    for (const auto& [name, tensor] : model.TrainableParameters())
      EXPECT_TRUE(tensor.grad().defined()) << name;
  }
}

}  // namespace
}  // namespace plural::trainer
