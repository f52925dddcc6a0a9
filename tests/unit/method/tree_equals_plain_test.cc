// The token tree computes what one padded row a sequence computes: loss and every gradient, to rounding.
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "data/rows.h"
#include "tests/unit/support/random_groups.h"
#include "tests/unit/support/run_and_read.h"
#include "tests/unit/support/tiny_decoder.h"
#include "trainer/method/objective.h"
#include "trainer/ops/attention.h"

namespace plural::trainer {
namespace {

using data::LabelledGroup;
using data::LabelledSequence;
using data::Layout;
using data::RowPass;

// fp64 keeps 1.1e-16; a loss or gradient here is a few hundred products deep, so honest reordering stays
// below 1e-12 and a wrong term is far above 1e-10.
constexpr double kTolerance = 1e-10;

struct Step {
  const Method* method = nullptr;
  std::vector<LabelledGroup> groups;
  data::PackSettings tree;
  data::PackSettings plain;
  testing::TinyOptions model;
  HeadSettings head;
  bool weighted_edges_only = false;
  std::optional<std::uint64_t> dropout_key;
};

// Up to four groups of a step, with everything that changes how they are laid out.
Step RandomStep(std::uint64_t seed, const Method& method) {
  data::CounterRandom random{data::Mix64(seed * 16 + data::HashName(std::string(method.name)))};
  Step step;
  step.method = &method;
  const std::uint64_t groups = 1 + random.Below(4);
  for (std::uint64_t g = 0; g < groups; ++g) {
    step.groups.push_back(data::testing::MakeRandomCase(seed * 4 + g, method.name).labelled);
  }
  // From every tree alone in its pass to all in one; from whole groups to one sequence a tree.
  step.tree.row_budget = 1 + static_cast<std::int64_t>(random.Below(80));
  if (random.Below(2) == 0) step.tree.cost.max_rows = 1 + static_cast<std::int64_t>(random.Below(12));
  if (random.Below(3) == 0) step.tree.cost.per_row_pair = 0.2 * random.Uniform();
  step.plain.layout = Layout::kPlain;
  step.plain.row_budget = 1 + static_cast<std::int64_t>(random.Below(40));
  step.model = {.sliding_window = random.Below(3) == 0 ? 3 : 0,
                .tied = random.Below(2) == 0,
                .lora = random.Below(2) == 0,
                .rich = random.Below(2) == 0,
                .fused = random.Below(3) == 0};
  step.head.chunk_rows = 1 + static_cast<std::int64_t>(random.Below(9));
  step.head.keep_bytes = random.Below(2) == 0 ? 0 : std::int64_t{1} << 20;
  step.weighted_edges_only = random.Below(2) == 0;
  // A shared token has one mask, which every one of its copies in the plain layout has, too.
  if (step.model.lora && random.Below(2) == 0) {
    step.model.dropout = 0.3;
    step.dropout_key = seed;
  }
  return step;
}

struct Outcome {
  double loss = 0.0;
  std::map<std::string, at::Tensor> gradients;
  std::map<std::pair<int, int>, double> log_p;  // by (group, sequence)
};

void ClearGradients(const Decoder& model) {
  for (const auto& [name, tensor] : model.TrainableParameters()) tensor.mutable_grad() = at::Tensor();
}

Outcome TakeGradients(const Decoder& model, Outcome outcome) {
  for (const auto& [name, tensor] : model.TrainableParameters()) {
    outcome.gradients[name] = tensor.grad().defined() ? tensor.grad().clone() : at::zeros_like(tensor);
  }
  return outcome;
}

Outcome RunStep(const Decoder& model, const Step& step, const data::PackSettings& pack,
                bool weighted_edges_only) {
  ClearGradients(model);
  Outcome outcome;
  const double scale = 1.0 / static_cast<double>(step.groups.size());
  ObjectiveSettings settings;
  settings.method = step.method;
  settings.values.own = OwnDefaults();
  settings.weighted_edges_only = weighted_edges_only;
  settings.dropout_key = step.dropout_key;
  for (const RowPass& pass : data::PackGroups(step.groups, pack, scale)) {
    const testing::ReadPass result = testing::RunAndRead(model, pass, settings, step.head);
    EXPECT_NEAR(result.loss.item<double>(), result.likelihood + result.unlikelihood, 1e-14);
    result.loss.backward();
    outcome.loss += result.loss.item<double>();
    for (std::size_t s = 0; s < result.sequence_log_p.size(); ++s) {
      outcome.log_p[{pass.sequences[s].group, pass.sequences[s].sequence}] = result.sequence_log_p[s];
    }
  }
  return TakeGradients(model, std::move(outcome));
}

void ExpectEqual(const Outcome& found, const Outcome& wanted) {
  EXPECT_NEAR(found.loss, wanted.loss, kTolerance * std::abs(wanted.loss));
  double largest = 0.0;
  for (const auto& [name, gradient] : wanted.gradients)
    largest = std::max(largest, gradient.abs().max().item<double>());
  EXPECT_GT(largest, 0.0);
  for (const auto& [name, gradient] : wanted.gradients) {
    const double error = (found.gradients.at(name) - gradient).abs().max().item<double>();
    // Where terms cancel, or a row sees only itself and queries and keys have no gradient, what is left
    // is rounding of the other gradients: it is measured against those.
    const double size = std::max(gradient.abs().max().item<double>(), 1e-3 * largest);
    EXPECT_LE(error, kTolerance * size) << name;
  }
}

class TreeEqualsPlain : public ::testing::TestWithParam<const Method*> {};

TEST_P(TreeEqualsPlain, LossAndEveryGradient) {
  std::size_t groups = 0;
  std::size_t cut = 0;
  std::size_t shared_passes = 0;
  std::size_t padded = 0;
  for (std::uint64_t seed = 0; seed < 120; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    const Step step = RandomStep(seed, *GetParam());
    const Decoder model = testing::TinyDecoder(step.model);
    const Outcome plain = RunStep(model, step, step.plain, false);
    const Outcome tree = RunStep(model, step, step.tree, step.weighted_edges_only);
    ExpectEqual(tree, plain);
    if (!step.weighted_edges_only) {
      ASSERT_EQ(tree.log_p.size(), plain.log_p.size());
      for (const auto& [sequence, log_p] : plain.log_p) {
        EXPECT_NEAR(tree.log_p.at(sequence), log_p, kTolerance * std::abs(log_p));
      }
    }
    if (HasFailure()) break;

    // What the settings were for really happens.
    groups += step.groups.size();
    for (const LabelledGroup& group : step.groups) {
      cut += data::CutGroup(group.sequences, step.tree.cost).size() > 1 ? 1 : 0;
    }
    for (const RowPass& pass : data::PackGroups(step.groups, step.tree, 1.0)) {
      shared_passes += pass.sequences.front().group != pass.sequences.back().group ? 1 : 0;
    }
    for (const RowPass& pass : data::PackGroups(step.groups, step.plain, 1.0)) {
      padded += pass.rows < pass.batch * pass.length ? 1 : 0;
    }
  }
  EXPECT_GE(groups, 200U);
  EXPECT_GE(shared_passes, 10U);
  if (GetParam()->responses != UsedResponses::kFirst) {
    EXPECT_GE(cut, 10U);
    EXPECT_GE(padded, 10U);
  }
}

// The group's loss as the methods define it: each sequence alone, softmax over all its logits, ordinary
// autograd.
at::Tensor LossByDefinition(const Decoder& model, const LabelledGroup& group) {
  at::Tensor loss = at::zeros({}, at::kDouble);
  for (const LabelledSequence& sequence : group.sequences) {
    std::vector<std::int64_t> tokens(sequence.prefix->begin(), sequence.prefix->end());
    tokens.insert(tokens.end(), sequence.response.begin(), sequence.response.end());
    const at::Tensor token_N = at::tensor(tokens, at::kLong);
    RowPass causal;
    causal.length = token_N.size(0);
    for (std::int32_t t = 0; t < causal.length; ++t) causal.position.push_back(t);
    const auto attention =
        MakePassAttention(causal, model.Config().Attention(), model.DType(), model.Device());
    const at::Tensor hidden =
        model.Hidden(model.Embed(token_N), at::arange(causal.length, at::kLong), *attention);
    const at::Tensor log_p = at::log_softmax(model.Logits(hidden), 1);
    for (std::size_t t = 0; t < sequence.response.size(); ++t) {
      const at::Tensor of_token =
          log_p[static_cast<std::int64_t>(sequence.prefix->size() + t) - 1][sequence.response[t]];
      loss = loss - sequence.likelihood[t] * of_token;
      if (sequence.unlikelihood[t] > 0) {
        loss = loss - sequence.unlikelihood[t] * (1 - of_token.exp()).clamp_min(1e-6).log();
      }
    }
  }
  return loss;
}

TEST_P(TreeEqualsPlain, AndTheDefinition) {
  if (GetParam()->edge_loss != nullptr) return;  // defined elsewhere: the method has vectors of its own
  for (std::uint64_t seed = 1000; seed < 1020; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Step step = RandomStep(seed, *GetParam());
    step.dropout_key.reset();  // the definition drops nothing
    const Decoder model = testing::TinyDecoder(step.model);
    ClearGradients(model);
    Outcome definition;
    for (const LabelledGroup& group : step.groups) {
      const at::Tensor loss = LossByDefinition(model, group) / static_cast<double>(step.groups.size());
      loss.backward();
      definition.loss += loss.item<double>();
    }
    definition = TakeGradients(model, std::move(definition));
    ExpectEqual(RunStep(model, step, step.tree, step.weighted_edges_only), definition);
    if (HasFailure()) break;
  }
}

// Every method whose loss is that of edges; latents have tests of their own.
std::vector<const Method*> EdgeMethods() {
  std::vector<const Method*> methods;
  for (const Method* method : Methods()) {
    if (method->losses == nullptr && method->leaf_loss == nullptr) methods.push_back(method);
  }
  return methods;
}
INSTANTIATE_TEST_SUITE_P(Methods, TreeEqualsPlain, ::testing::ValuesIn(EdgeMethods()),
                         [](const auto& method) { return std::string(method.param->name); });

at::Tensor HiddenOf(const Decoder& model, const RowPass& pass) {
  const auto attention = MakePassAttention(pass, model.Config().Attention(), model.DType(), model.Device());
  const at::Tensor token_N = at::tensor(pass.token, at::kInt).to(at::kLong);
  return model.Hidden(model.Embed(token_N), at::tensor(pass.position, at::kInt).to(at::kLong), *attention);
}

// Changes every row's token in turn. Rows that do not see it keep their hidden state to the last bit; the
// row itself does not.
void ExpectNoLeak(const Decoder& model, const RowPass& pass) {
  const at::Tensor before = HiddenOf(model, pass);
  for (std::int32_t changed = 0; changed < pass.batch * pass.length; ++changed) {
    RowPass other = pass;
    const auto at = static_cast<std::size_t>(changed);
    other.token[at] = (other.token[at] + 1) % data::testing::kVocabulary;
    const at::Tensor after = HiddenOf(model, other);
    const std::int64_t item = changed / pass.length;
    for (std::int32_t row = 0; row < pass.batch * pass.length; ++row) {
      const bool same_item = row / pass.length == item;
      const bool sees = same_item && changed <= row && (pass.end.empty() || row < pass.end[at]);
      if (!sees) {
        ASSERT_TRUE(at::equal(before[row], after[row])) << "row " << row << " sees row " << changed;
      } else if (row == changed) {
        ASSERT_FALSE(at::equal(before[row], after[row]));
      }
    }
  }
}

TEST(Visibility, RowsOfOneBranchDoNotReachAnother) {
  for (const at::ScalarType dtype : {at::kDouble, at::kFloat}) {
    const Decoder model = testing::TinyDecoder({}, dtype);
    for (std::uint64_t seed = 0; seed < 4; ++seed) {
      std::vector<LabelledGroup> groups;
      for (std::uint64_t g = 0; g < 2; ++g) {
        groups.push_back(data::testing::MakeRandomCase(seed * 2 + g, "peft").labelled);
      }
      // Two trees side by side; then padded rows, whose padding is changed as well.
      for (const Layout layout : {Layout::kTree, Layout::kPlain}) {
        data::PackSettings pack;
        pack.layout = layout;
        for (const RowPass& pass : data::PackGroups(groups, pack, 1.0)) {
          ASSERT_NO_FATAL_FAILURE(ExpectNoLeak(model, pass));
        }
      }
    }
  }
}

TEST(Visibility, AWindowOfThreeReachesTwoTokensBackALayer) {
  const Decoder model = testing::TinyDecoder({.sliding_window = 3});
  for (const Layout layout : {Layout::kTree, Layout::kPlain}) {
    RowPass pass;
    pass.length = 8;
    for (std::int32_t t = 0; t < pass.length; ++t) {
      pass.token.push_back(t);
      pass.position.push_back(t);
      if (layout == Layout::kTree) pass.end.push_back(8);
    }
    const at::Tensor before = HiddenOf(model, pass);
    pass.token[0] = 20;
    const at::Tensor after = HiddenOf(model, pass);
    // Two layers: rows up to 4 hear of token 0, later ones do not.
    for (std::int64_t row = 0; row < pass.length; ++row) {
      EXPECT_EQ(at::equal(before[row], after[row]), row > 4) << row;
    }
  }
}

TEST(Visibility, LogProbabilitiesOfOtherBranchesKeepTheirBits) {
  // The token after the first branch point of one sequence changes; of the sequences that do not hold it
  // every log-probability stays as it was.
  const Decoder model = testing::TinyDecoder({});
  const LabelledGroup group = data::testing::MakeRandomCase(5, "distribution_matching").labelled;
  const std::vector<RowPass> passes = data::PackGroups(std::vector{group}, {}, 1.0);
  ASSERT_EQ(passes.size(), 1U);
  const RowPass& pass = passes[0];
  const testing::ReadPass before = testing::RunAndRead(model, pass, {});
  int kept = 0;
  int moved = 0;
  for (std::int32_t changed = 0; changed < pass.length; ++changed) {
    RowPass other = pass;
    other.token[static_cast<std::size_t>(changed)] = 22;
    const testing::ReadPass after = testing::RunAndRead(model, other, {});
    for (std::size_t s = 0; s < pass.sequences.size(); ++s) {
      bool seen = false;
      for (std::int32_t i = pass.path_offset[s]; i < pass.path_offset[s + 1]; ++i) {
        const std::int32_t source =
            pass.edges[static_cast<std::size_t>(pass.path[static_cast<std::size_t>(i)])].source;
        seen |= changed <= source && source < pass.end[static_cast<std::size_t>(changed)];
      }
      EXPECT_EQ(before.sequence_log_p[s] == after.sequence_log_p[s], !seen);
      (seen ? moved : kept) += 1;
    }
  }
  EXPECT_GT(kept, 0);
  EXPECT_GT(moved, 0);
}

}  // namespace
}  // namespace plural::trainer
