// CVF: the vectors of the specification, unbiasedness, and one loss and gradient whichever way it is
// computed: by definition, as trees, as plain rows, by finite differences.
#include "trainer/method/latent_unit.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <map>
#include <numeric>
#include <optional>
#include <string>
#include <vector>

#include "tests/unit/support/random_groups.h"
#include "tests/unit/support/tiny_decoder.h"
#include "trainer/ops/attention.h"

namespace plural::trainer {
namespace {

using data::LabelledGroup;
using data::LabelledSequence;
using data::Layout;
using data::RowPass;

constexpr std::int64_t kLatents = 3;
// As in tree_equals_plain_test.cc: fp64, a few hundred products deep.
constexpr double kUnitTolerance = 1e-10;

at::Tensor Doubles(const std::vector<double>& values) {
  return at::tensor(at::ArrayRef<double>(values), at::kDouble);
}

// docs/methods.md 4.7; printed there with six digits.
TEST(Vectors, SoftGumbelWeights) {
  const at::Tensor noise = GumbelNoise(Doubles({0.3, 0.8, 0.6}));
  const std::array<double, 3> wanted_noise = {-0.185627, 1.499940, 0.671727};
  const at::Tensor weights = SoftGumbel(Doubles({1, 0, -1}), noise, 0.67);
  const std::array<double, 3> wanted = {0.252279, 0.701884, 0.045837};
  for (std::int64_t z = 0; z < 3; ++z) {
    EXPECT_NEAR(noise[z].item<double>(), wanted_noise[static_cast<std::size_t>(z)], 5e-7);
    EXPECT_NEAR(weights[z].item<double>(), wanted[static_cast<std::size_t>(z)], 5e-7);
  }
}

TEST(Vectors, BagOfWordsKeepsMultiplicity) {
  // Identity for a head: the hidden state [1, 0, 0, -1] is the logits.
  const VocabularyHead head{{at::eye(4, at::kDouble), {}}};
  const at::Tensor hidden = Doubles({1, 0, 0, -1}).unsqueeze(0);
  const at::Tensor sum = BagOfWords(hidden, head, {0}, {{0, 0, 3}});
  EXPECT_NEAR(sum.item<double>() / 3.0, 1.293190, 5e-7);
  // Two sequences of one row share its edges, and each keeps its own count.
  const at::Tensor both = BagOfWords(hidden, head, {0, 0}, {{0, 0, 3}, {3}});
  EXPECT_NEAR(both[0].item<double>(), sum.item<double>(), 1e-14);
  EXPECT_NEAR(both[1].item<double>(), 1.0 + std::log(std::exp(1.0) + 2.0 + std::exp(-1.0)), 1e-14);
}

TEST(Vectors, HardDrawsAverageToTheExactExpectation) {
  const at::Tensor logits = Doubles({1, 0, -1});
  const std::vector<double> nll = {2, 1, 3};
  const at::Tensor q = at::softmax(logits, -1);
  const double exact = (q * Doubles(nll)).sum().item<double>();
  EXPECT_NEAR(exact, 1.845302, 5e-7);

  constexpr int kDraws = 200'000;
  double sum = 0.0;
  std::vector<double> soft(3, 0.0);
  for (int draw = 0; draw < kDraws; ++draw) {
    const at::Tensor noise = GumbelNoise(LatentDraws(99, draw, 3));
    sum += nll[static_cast<std::size_t>((logits + noise).argmax().item<std::int64_t>())];
    if (draw % 10 != 0) continue;
    const at::Tensor weights = SoftGumbel(at::zeros({3}, at::kDouble), noise, 0.67);
    for (std::int64_t z = 0; z < 3; ++z) soft[static_cast<std::size_t>(z)] += weights[z].item<double>();
  }
  // Five standard errors: the NLL's standard deviation under q is 0.53, so 5 * 0.53 / sqrt(2e5) = 6e-3.
  EXPECT_NEAR(sum / kDraws, exact, 6e-3);
  // Of equal logits the soft weights average to 1/3 by symmetry; a weight's standard deviation is below that
  // of a hard draw, 0.4714: 5 * 0.4714 / sqrt(2e4) = 1.7e-2.
  for (const double weight : soft) EXPECT_NEAR(weight / (kDraws / 10), 1.0 / 3.0, 1.7e-2);
}

TEST(Draws, DependOnGroupEpochResponseAndSeedOnly) {
  data::Group group = data::testing::MakeRandomCase(3, "cvf").group;
  const data::LabelSettings settings{.responses = 0};
  const auto key = [&](std::int64_t epoch) {
    return Label(MethodNamed("cvf"), group, settings, epoch).latent_key;
  };
  const std::uint64_t first = key(0);
  EXPECT_EQ(first, key(0));
  EXPECT_NE(first, key(1));
  group.index += 7;  // its place in the corpus is no part of it
  EXPECT_EQ(first, key(0));
  group.id += "x";
  EXPECT_NE(first, key(0));
  EXPECT_NE(LatentDraws(first, 0, 4)[0].item<double>(), LatentDraws(first, 1, 4)[0].item<double>());
  // More latents go on from fewer.
  EXPECT_EQ(LatentDraws(first, 0, 4)[3].item<double>(), LatentDraws(first, 0, 9)[3].item<double>());
}

Decoder LatentDecoder(const testing::TinyOptions& options) {
  Decoder model = testing::TinyDecoder(options);
  model.AddLatents(kLatents, 5);
  for (const auto& [name, tensor] : model.LatentHeads()->Parameters()) {
    const bool norm = name.ends_with("norm.weight");
    testing::FillUniform(tensor, norm ? 0.5 : -0.7, norm ? 1.5 : 0.7, name);
  }
  return model;
}

struct Step {
  std::vector<LabelledGroup> groups;
  data::PackSettings tree, plain;
  testing::TinyOptions model;
  LatentSettings settings;
  std::optional<std::uint64_t> dropout_key;
};

Step RandomStep(std::uint64_t seed, LatentEstimator estimator) {
  data::CounterRandom random{data::Mix64(seed * 2 + static_cast<std::uint64_t>(estimator))};
  Step step;
  const std::uint64_t groups = 1 + random.Below(4);
  for (std::uint64_t g = 0; g < groups; ++g) {
    data::testing::RandomCase example = data::testing::MakeRandomCase(seed * 4 + g, "cvf");
    example.group.index = static_cast<std::int64_t>(g);
    example.settings.latent_branches = estimator == LatentEstimator::kExact ? kLatents : 0;
    step.groups.push_back(
        Label(*example.method, example.group, example.settings, static_cast<std::int64_t>(seed % 3)));
  }
  step.tree.row_budget = 1 + static_cast<std::int64_t>(random.Below(80));
  if (random.Below(2) == 0) step.tree.cost.max_rows = 1 + static_cast<std::int64_t>(random.Below(12));
  step.plain.layout = Layout::kPlain;
  step.plain.row_budget = 1 + static_cast<std::int64_t>(random.Below(40));
  step.model = {.sliding_window = random.Below(3) == 0 ? 3 : 0,
                .tied = random.Below(2) == 0,
                .lora = random.Below(2) == 0,
                .rich = random.Below(2) == 0};
  step.settings = {.estimator = estimator, .bow_weight = static_cast<double>(random.Below(3)) * 0.7};
  if (step.model.lora && random.Below(2) == 0) {
    step.model.dropout = 0.3;
    step.dropout_key = seed;
  }
  return step;
}

struct UnitOutcome {
  double loss = 0.0;
  UnitFigures figures;
  std::map<std::string, at::Tensor> gradients;
};

void ClearGradients(const Decoder& model) {
  for (const auto& [name, tensor] : model.TrainableParameters()) tensor.mutable_grad() = at::Tensor();
}

UnitOutcome TakeGradients(const Decoder& model, UnitOutcome outcome) {
  for (const auto& [name, tensor] : model.TrainableParameters()) {
    outcome.gradients[name] = tensor.grad().defined() ? tensor.grad().clone() : at::zeros_like(tensor);
  }
  return outcome;
}

UnitOutcome RunStep(const Decoder& model, const Step& step, const data::PackSettings& pack) {
  ClearGradients(model);
  UnitOutcome outcome;
  const double scale = 1.0 / static_cast<double>(step.groups.size());
  const std::vector<RowPass> passes = data::PackGroups(step.groups, pack, scale);
  std::vector<LatentUnit> units;
  for (const LatentUnitPasses& unit_passes : LatentUnitsOf(passes)) {
    LatentUnit& unit = units.emplace_back(model, unit_passes.recognition, step.groups, scale, step.settings,
                                          step.dropout_key);
    for (const RowPass& pass : unit_passes.generation) {
      const at::Tensor loss = unit.Run(pass);
      outcome.loss += loss.item<double>();
      if (c10::GradMode::is_enabled()) loss.backward();
    }
    if (c10::GradMode::is_enabled()) unit.FinishBackward();
  }
  outcome.figures = LatentUnit::ReadFigures(units);
  EXPECT_NEAR(outcome.loss, outcome.figures.likelihood + outcome.figures.bow, 1e-13);
  return TakeGradients(model, std::move(outcome));
}

void ExpectEqual(const UnitOutcome& found, const UnitOutcome& wanted) {
  EXPECT_NEAR(found.loss, wanted.loss, kUnitTolerance * std::abs(wanted.loss));
  double largest = 0.0;
  for (const auto& [name, gradient] : wanted.gradients)
    largest = std::max(largest, gradient.abs().max().item<double>());
  EXPECT_GT(largest, 0.0);
  for (const auto& [name, gradient] : wanted.gradients) {
    const double error = (found.gradients.at(name) - gradient).abs().max().item<double>();
    // Where terms cancel, what is left is rounding of the other gradients: it is measured against those.
    const double size = std::max(gradient.abs().max().item<double>(), 1e-3 * largest);
    EXPECT_LE(error, kUnitTolerance * size) << name;
  }
}

// The loss as docs/methods.md 4.3 writes it: every sequence alone, ordinary autograd through everything at
// once.
class Definition {
 public:
  Definition(const Decoder& model, const LatentSettings& settings) : model_(model), settings_(settings) {}

  at::Tensor LossOf(const LabelledGroup& group) {
    std::vector<at::Tensor> logits;
    for (const LabelledSequence& sequence : group.recognition) {
      // Everything but the query, which is last.
      const Tokens tokens(sequence.prefix->begin(), sequence.prefix->end() - 1);
      const at::Tensor hidden = Hidden(at::cat({Embed(tokens), Heads().query_E.unsqueeze(0)}));
      logits.push_back(at::matmul(Heads().recognition_weight_KE, hidden[-1]) + Heads().recognition_bias_K);
    }
    at::Tensor loss = at::zeros({}, at::kDouble);
    for (const LabelledSequence& sequence : group.sequences) {
      const auto response = static_cast<std::size_t>(sequence.response_index);
      const bool exact = settings_.estimator == LatentEstimator::kExact;
      at::Tensor weight = Doubles({sequence.likelihood.front()})[0];
      at::Tensor latent;
      if (exact) {
        latent = Heads().table_KE[sequence.latent - 1];
        weight = weight * at::softmax(logits[response], 0)[sequence.latent - 1];
      } else {
        const at::Tensor u = LatentDraws(group.latent_key, sequence.response_index, kLatents);
        const at::Tensor g = -(1e-10 - (u + 1e-10).log()).log();
        latent = at::matmul(at::softmax((logits[response] + g) / settings_.temperature, 0), Heads().table_KE);
      }
      const Tokens prompt(sequence.prefix->begin(), sequence.prefix->end() - 1);
      const Tokens& tokens = sequence.response;
      const at::Tensor hidden = Hidden(at::cat({Embed(prompt), latent.unsqueeze(0), Embed(tokens)}));
      const auto place = static_cast<std::int64_t>(prompt.size());
      const at::Tensor log_p = at::log_softmax(model_.Logits(hidden), 1);
      const at::Tensor h = at::matmul(Heads().bow_dense_EE, hidden[place]);
      const at::Tensor gelu = 0.5 * h * (1 + (h / std::sqrt(2.0)).erf());
      const at::Tensor norm =
          gelu * (gelu.square().mean() + model_.Config().rms_norm_eps).rsqrt() * Heads().bow_norm_E;
      at::Tensor bow_logits = at::matmul(model_.Head().linear.weight_OI.detach(), norm);
      const double cap = model_.Head().softcap;
      if (cap > 0) bow_logits = cap * (bow_logits / cap).tanh();
      const at::Tensor bow = at::log_softmax(bow_logits, 0);
      for (std::size_t t = 0; t < tokens.size(); ++t) {
        loss = loss - weight * (log_p[place + static_cast<std::int64_t>(t)][tokens[t]] +
                                settings_.bow_weight * bow[tokens[t]]);
      }
    }
    return loss;
  }

 private:
  using Tokens = std::vector<data::Token>;
  const Latents& Heads() const { return *model_.LatentHeads(); }
  at::Tensor Embed(const Tokens& tokens) const {
    return model_.Embed(at::tensor(at::ArrayRef<data::Token>(tokens), at::kInt).to(at::kLong));
  }
  at::Tensor Hidden(const at::Tensor& embedding_NE) const {
    RowPass causal;
    causal.length = embedding_NE.size(0);
    for (std::int32_t t = 0; t < causal.length; ++t) causal.position.push_back(t);
    const auto attention =
        MakePassAttention(causal, model_.Config().Attention(), model_.DType(), model_.Device());
    return model_.Hidden(embedding_NE, at::arange(causal.length, at::kLong), *attention);
  }

  const Decoder& model_;
  const LatentSettings settings_;
};

class Estimators : public ::testing::TestWithParam<LatentEstimator> {};

TEST_P(Estimators, TreeEqualsPlain) {
  std::size_t units = 0, cut = 0;
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    const Step step = RandomStep(seed, GetParam());
    const Decoder model = LatentDecoder(step.model);
    const UnitOutcome tree = RunStep(model, step, step.tree);
    const UnitOutcome plain = RunStep(model, step, step.plain);
    ExpectEqual(tree, plain);
    const LatentFigures tree_figures = FiguresOfLatents(tree.figures.sums);
    const LatentFigures plain_figures = FiguresOfLatents(plain.figures.sums);
    EXPECT_NEAR(tree_figures.used_latents, plain_figures.used_latents, 1e-9);
    EXPECT_NEAR(tree_figures.information_nats, plain_figures.information_nats, 1e-9);
    EXPECT_NEAR(tree_figures.latent_nll_spread_nats, plain_figures.latent_nll_spread_nats, 1e-9);
    EXPECT_NEAR(tree.figures.logprob_nats, plain.figures.logprob_nats, 1e-9);
    if (HasFailure()) break;
    // What the settings were for really happens.
    const std::vector<RowPass> passes = data::PackGroups(step.groups, step.tree, 1.0);
    units += LatentUnitsOf(passes).size() > 1 ? 1 : 0;
    for (const LabelledGroup& group : step.groups) {
      cut += data::CutGroup(group.sequences, step.tree.cost).size() > 1 ? 1 : 0;
    }
  }
  EXPECT_GE(units, 10U);
  EXPECT_GE(cut, 10U);
}

TEST_P(Estimators, EqualTheDefinition) {
  for (std::uint64_t seed = 100; seed < 120; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Step step = RandomStep(seed, GetParam());
    step.dropout_key.reset();  // the definition drops nothing
    const Decoder model = LatentDecoder(step.model);
    ClearGradients(model);
    UnitOutcome wanted;
    Definition definition(model, step.settings);
    for (const LabelledGroup& group : step.groups) {
      const at::Tensor loss = definition.LossOf(group) / static_cast<double>(step.groups.size());
      loss.backward();
      wanted.loss += loss.item<double>();
    }
    wanted = TakeGradients(model, std::move(wanted));
    ExpectEqual(RunStep(model, step, step.tree), wanted);
    if (HasFailure()) break;
  }
}

TEST_P(Estimators, GradientsEqualFiniteDifferences) {
  for (const bool lora : {true, false}) {
    Step step = RandomStep(7, GetParam());
    step.model = {.lora = lora};
    step.dropout_key.reset();
    step.settings.bow_weight = lora ? 0.7 : 0.0;  // the head that BOW goes through is no variable of it
    const Decoder model = LatentDecoder(step.model);
    const UnitOutcome analytic = RunStep(model, step, step.tree);
    // Central differences along one random direction a parameter. With step h the rounding of two losses of
    // size L makes an error of 2^-52 L / h and the third derivative one of h^2 / 6 times itself: with h =
    // 1e-5 and L near 5 that is 1e-10 and some 1e-10. 1e-7 leaves room for a third derivative of 1,000.
    constexpr double kStep = 1e-5;
    const c10::NoGradGuard no_grad;
    for (const auto& [name, tensor] : model.TrainableParameters()) {
      const at::Tensor direction = at::empty_like(tensor);
      testing::FillUniform(direction, -1.0, 1.0, "direction " + name);
      direction.div_(direction.norm());
      const double slope = (analytic.gradients.at(name) * direction).sum().item<double>();
      const at::Tensor saved = tensor.clone();
      tensor.copy_(saved + kStep * direction);
      const double above = RunStep(model, step, step.tree).loss;
      tensor.copy_(saved - kStep * direction);
      const double below = RunStep(model, step, step.tree).loss;
      tensor.copy_(saved);
      EXPECT_NEAR((above - below) / (2.0 * kStep), slope, 1e-7) << name;
    }
    // Every part is trained, also what only recognition knows.
    for (const auto& [name, gradient] : analytic.gradients) {
      if (name.starts_with("latents.bow.") && step.settings.bow_weight == 0.0) continue;
      EXPECT_GT(gradient.abs().max().item<double>(), 0.0) << name;
    }
  }
}

TEST_P(Estimators, BagOfWordsLeavesTheHeadAsItIs) {
  // All weights trained: what the bag-of-words term adds to the head's gradient comes from the states before
  // it, never from its own projection. With untied weights the difference is 0.
  Step step = RandomStep(11, GetParam());
  step.model = {.tied = false, .lora = false};
  const Decoder model = LatentDecoder(step.model);
  step.settings.bow_weight = 0.0;
  const UnitOutcome without = RunStep(model, step, step.tree);
  step.settings.bow_weight = 2.0;
  const UnitOutcome with = RunStep(model, step, step.tree);
  EXPECT_GT(with.figures.bow, 0.0);
  EXPECT_EQ(without.figures.bow, 0.0);
  EXPECT_NEAR(with.figures.likelihood, without.figures.likelihood, 1e-13);
  const at::Tensor difference = with.gradients.at("lm_head.weight") - without.gradients.at("lm_head.weight");
  EXPECT_LE(difference.abs().max().item<double>(), 1e-13);
  EXPECT_GT((with.gradients.at("model.norm.weight") - without.gradients.at("model.norm.weight"))
                .abs()
                .max()
                .item<double>(),
            1e-6);
}

std::string NameOf(const ::testing::TestParamInfo<LatentEstimator>& info) {
  return info.param == LatentEstimator::kExact ? "Exact" : "GumbelSoft";
}
INSTANTIATE_TEST_SUITE_P(Both, Estimators,
                         ::testing::Values(LatentEstimator::kGumbelSoft, LatentEstimator::kExact), NameOf);

TEST(Figures, OfKnownPosteriors) {
  // Two responses that tell their latents apart, of three: two are used, and one bit is known.
  LatentSums sums;
  sums.AddResponse({1, 0, 0}, {2.0, 1.0, 4.5});
  sums.AddResponse({0, 1, 0}, {1.0, 1.0, 1.0});
  LatentFigures figures = FiguresOfLatents(sums);
  EXPECT_NEAR(figures.used_latents, 2.0, 1e-12);
  EXPECT_NEAR(figures.information_nats, std::log(2.0), 1e-12);
  EXPECT_NEAR(figures.latent_nll_spread_nats, 1.75, 1e-12);
  // Equal posteriors say nothing, however many latents they use.
  LatentSums dead;
  dead.AddResponse({0.5, 0.25, 0.25}, {});
  dead.AddResponse({0.5, 0.25, 0.25}, {});
  figures = FiguresOfLatents(dead);
  EXPECT_NEAR(figures.information_nats, 0.0, 1e-12);
  EXPECT_NEAR(figures.used_latents, std::exp(1.5 * std::log(2.0)), 1e-12);
  // Sums travel between ranks by name; a rank without a response adds zeros.
  Sums named(LatentSums::Names(3));
  LatentSums().AddTo(named);
  sums.AddTo(named);
  const LatentSums all = LatentSums::From(named);
  EXPECT_EQ(all.responses, 2);
  EXPECT_EQ(all.q_K, sums.q_K);
  EXPECT_EQ(all.nll_spread_nats, sums.nll_spread_nats);
}

}  // namespace
}  // namespace plural::trainer
