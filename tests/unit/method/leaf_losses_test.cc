// Losses of whole responses, in two phases: a method of the test's own, whose loss is no sum over edges.
#include "trainer/method/leaf_losses.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <string>

#include "tests/unit/support/random_groups.h"
#include "tests/unit/support/tiny_decoder.h"
#include "trainer/method/pass_forward.h"
#include "trainer/model/head.h"

namespace plural::trainer {
namespace {

// -log sum_j p(r_j | prompt): any of the group's responses will do.
std::vector<at::Tensor> AnyResponse(const data::LabelledGroup& /*group*/, const at::Tensor& log_p_Q,
                                    double scale, const MethodSettings& /*settings*/) {
  return {at::logsumexp(log_p_Q, 0).neg() * scale};
}

constexpr std::string_view kTerms[] = {"likelihood"};
const Method kAny{.name = "any", .terms = kTerms, .leaf_loss = AnyResponse};

struct LeafOutcome {
  Sums sums = StepSums(kAny, {});
  std::vector<std::vector<double>> log_p;
  std::map<std::string, at::Tensor> gradients;
};

LeafOutcome RunGroups(const Decoder& model, const std::vector<data::LabelledGroup>& groups,
                      const data::PackSettings& pack, std::size_t& passes_run) {
  for (const auto& [name, tensor] : model.TrainableParameters()) tensor.mutable_grad() = at::Tensor();
  const double scale = 1.0 / static_cast<double>(groups.size());
  const std::vector<data::RowPass> passes = data::PackGroups(groups, pack, scale);
  passes_run = passes.size();
  const MethodSettings settings;
  LeafOutcome outcome;
  const auto losses = MakePassLosses({.model = model,
                                      .method = kAny,
                                      .settings = settings,
                                      .passes = passes,
                                      .groups = groups,
                                      .scale = scale});
  while (const auto part = losses->Next()) part->Backward();
  losses->AddTo(outcome.sums, outcome.log_p);
  for (const auto& [name, tensor] : model.TrainableParameters())
    outcome.gradients[name] = tensor.grad().clone();
  return outcome;
}

// The same by the definition: each sequence a row of its own, ordinary autograd through all of them at once.
LeafOutcome ByDefinition(const Decoder& model, const std::vector<data::LabelledGroup>& groups) {
  for (const auto& [name, tensor] : model.TrainableParameters()) tensor.mutable_grad() = at::Tensor();
  LeafOutcome outcome;
  at::Tensor loss;
  for (const data::LabelledGroup& group : groups) {
    std::vector<at::Tensor> log_p;
    for (const data::LabelledSequence& sequence : group.sequences) {
      data::RowPass causal;
      causal.token = *sequence.prefix;
      causal.token.insert(causal.token.end(), sequence.response.begin(), sequence.response.end());
      causal.length = static_cast<std::int64_t>(causal.token.size());
      std::vector<std::int64_t> rows;
      for (std::int32_t t = 0; t < causal.length; ++t) {
        causal.position.push_back(t);
        rows.push_back(t);
      }
      const at::Tensor hidden =
          HiddenOfSources(model, causal, RowNumbers(rows, model.Device()), {}).hidden_SE;
      const at::Tensor of_token = at::log_softmax(model.Logits(hidden), 1);
      at::Tensor sum = at::zeros_like(of_token[0][0]);
      for (std::size_t t = 0; t < sequence.response.size(); ++t) {
        const auto row = static_cast<std::int64_t>(sequence.prefix->size() + t) - 1;
        sum = sum + of_token[row][sequence.response[t]];
      }
      log_p.push_back(sum);
    }
    const at::Tensor of_group = at::logsumexp(at::stack(log_p), 0).neg() / static_cast<double>(groups.size());
    loss = loss.defined() ? loss + of_group : of_group;
  }
  loss.backward();
  outcome.sums["likelihood"] = loss.item<double>();
  for (const auto& [name, tensor] : model.TrainableParameters())
    outcome.gradients[name] = tensor.grad().clone();
  return outcome;
}

// fp64: sums of some hundred products; another order stays below 1e-12, a wrong term is far above 1e-10.
void ExpectSameOutcome(const LeafOutcome& found, const LeafOutcome& wanted) {
  EXPECT_NEAR(found.sums["likelihood"], wanted.sums["likelihood"],
              1e-10 * std::abs(wanted.sums["likelihood"]));
  double largest = 0.0;
  for (const auto& [name, gradient] : wanted.gradients) {
    largest = std::max(largest, gradient.abs().max().item<double>());
  }
  EXPECT_GT(largest, 0.0);
  for (const auto& [name, gradient] : wanted.gradients) {
    EXPECT_LT((found.gradients.at(name) - gradient).abs().max().item<double>(), 1e-10 * largest) << name;
  }
}

TEST(LeafLosses, OfCutAndWholeGroupsAreThoseOfTheDefinition) {
  int cut = 0;
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    const Decoder model = testing::TinyDecoder({.lora = seed % 2 == 0});
    std::vector<data::LabelledGroup> groups;
    for (std::uint64_t g = 0; g < 3; ++g) {
      groups.push_back(data::testing::MakeRandomCase(seed * 3 + g, "otmft").labelled);
    }
    const LeafOutcome definition = ByDefinition(model, groups);
    std::size_t whole_passes = 0, cut_passes = 0, padded_passes = 0;
    const LeafOutcome whole = RunGroups(model, groups, {.row_budget = 1000}, whole_passes);
    ExpectSameOutcome(whole, definition);
    data::PackSettings small{.row_budget = 1};
    small.cost.max_rows = 4;
    const LeafOutcome parts = RunGroups(model, groups, small, cut_passes);
    ExpectSameOutcome(parts, definition);
    ExpectSameOutcome(
        RunGroups(model, groups, {.layout = data::Layout::kPlain, .row_budget = 2}, padded_passes),
        definition);
    cut += cut_passes > groups.size() ? 1 : 0;
    EXPECT_EQ(whole_passes, 1U);
    ASSERT_EQ(parts.log_p.size(), groups.size());
    for (std::size_t g = 0; g < groups.size(); ++g) {
      ASSERT_EQ(parts.log_p[g].size(), groups[g].sequences.size());
      for (std::size_t s = 0; s < parts.log_p[g].size(); ++s) {
        EXPECT_NEAR(parts.log_p[g][s], whole.log_p[g][s], 1e-11 * std::abs(whole.log_p[g][s]));
      }
    }
    if (HasFailure()) break;
  }
  EXPECT_GE(cut, 10);
}

}  // namespace
}  // namespace plural::trainer
