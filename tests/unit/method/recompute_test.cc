#include "trainer/ops/recompute.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <gtest/gtest.h>

#include <map>

#include "tests/unit/support/tiny_decoder.h"
#include "trainer/method/objective.h"

namespace plural::trainer {
namespace {

data::RowPass MakePass(data::Layout layout) {
  data::CounterRandom random{3};
  const auto tokens = [&random](int count) {
    std::vector<data::Token> drawn;
    for (int i = 0; i < count; ++i) drawn.push_back(static_cast<data::Token>(random.Below(24)));
    return drawn;
  };
  data::LabelledGroup group;
  const auto prompt = tokens(30);
  for (int s = 0; s < 9; ++s) {
    data::LabelledSequence sequence;
    sequence.prefix = prompt;
    sequence.response = tokens(12);
    sequence.likelihood.assign(12, s % 3 == 0 ? 0.0 : 0.1);
    sequence.unlikelihood.assign(12, s % 3 == 0 ? 0.1 : 0.0);
    group.sequences.push_back(std::move(sequence));
  }
  return data::PackGroups({&group, 1}, {.layout = layout}, 1.0).at(0);
}

std::map<std::string, at::Tensor> Gradients(const Decoder& model, const data::RowPass& pass, bool recompute,
                                            double& loss) {
  for (const auto& [name, tensor] : model.TrainableParameters()) tensor.mutable_grad() = at::Tensor();
  const PassResult result =
      RunPass(model, pass, {.weighted_edges_only = true, .dropout_key = 5, .recompute = recompute});
  result.loss.backward();
  loss = result.loss.item<double>();
  std::map<std::string, at::Tensor> gradients;
  for (const auto& [name, tensor] : model.TrainableParameters()) gradients[name] = tensor.grad();
  return gradients;
}

// The same kernels on the same numbers: every bit, dropout included, which depends on rows and not on calls.
TEST(Recompute, LossAndGradientsAreTheSameBits) {
  for (const at::ScalarType dtype : {at::kFloat, at::kDouble}) {
    for (const data::Layout layout : {data::Layout::kTree, data::Layout::kPlain}) {
      for (const bool lora : {true, false}) {
        SCOPED_TRACE(std::string(at::toString(dtype)) + (lora ? ", adapter" : ", all weights"));
        testing::TinyOptions options;
        options.lora = lora;
        options.dropout = 0.3;
        options.sliding_window = 20;
        const Decoder model = testing::TinyDecoder(options, dtype);
        const data::RowPass pass = MakePass(layout);
        double loss = 0.0, again = 0.0;
        const auto wanted = Gradients(model, pass, false, loss);
        const auto found = Gradients(model, pass, true, again);
        EXPECT_EQ(loss, again);
        for (const auto& [name, gradient] : wanted) {
          ASSERT_EQ(found.at(name).defined(), gradient.defined()) << name;
          EXPECT_TRUE(!gradient.defined() || at::equal(found.at(name), gradient)) << name;
        }
      }
    }
  }
}

TEST(Recompute, RunsAgainInBackwardAndOnlyThere) {
  int runs = 0;
  const at::Tensor weight = at::ones({2, 2}, at::kDouble).set_requires_grad(true);
  const Region region = [&](const std::vector<at::Tensor>& inputs) {
    ++runs;
    return std::vector<at::Tensor>{inputs[0].matmul(weight), inputs[0] * 3.0};
  };
  const at::Tensor x = at::ones({1, 2}, at::kDouble);  // needs no gradient; the weight inside does
  const auto outputs = Recomputed(region, {x});
  EXPECT_EQ(runs, 1);
  outputs[0].sum().backward();  // nothing reaches the second output
  EXPECT_EQ(runs, 2);
  EXPECT_TRUE(at::equal(weight.grad(), at::ones({2, 2}, at::kDouble)));
}

}  // namespace
}  // namespace plural::trainer
