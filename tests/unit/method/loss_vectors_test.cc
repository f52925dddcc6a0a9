// The loss vectors of docs/methods.md, through labelling, packing, head and objective: values and
// gradients. The model's logits are prescribed, so that the numbers can be computed by hand.
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "data/error.h"
#include "data/rows.h"
#include "tests/unit/support/prescribed_decoder.h"
#include "tests/unit/support/random_groups.h"
#include "trainer/method/objective.h"
#include "trainer/method/target_figures.h"

namespace plural::trainer {
namespace {

using data::Group;
using data::LabelledGroup;
using data::LabelSettings;
using data::Layout;
using data::Normalization;
using data::RowPass;
using data::Token;
using data::testing::ResponseOf;
using testing::Logits;
using testing::PrescribedDecoder;

// The documented figures have six decimals.
constexpr double kVectorDecimals = 5.1e-7;
// What is derived in fp64 here and there in another order.
constexpr double kVectorRounding = 1e-13;

Logits Softmax(const Logits& z) {
  double sum = 0.0;
  for (const double x : z) sum += std::exp(x);
  Logits p;
  for (const double x : z) p.push_back(std::exp(x) / sum);
  return p;
}

RowPass OnlyPass(const LabelledGroup& group, Layout layout = Layout::kTree) {
  data::PackSettings pack;
  pack.layout = layout;
  std::vector<RowPass> passes = data::PackGroups(std::vector{group}, pack, 1.0);
  EXPECT_EQ(passes.size(), 1U);
  return passes[0];
}

// ---- docs/methods.md 3.4: two responses, two numbers ----

constexpr Token kNumber1 = 11;
constexpr Token kNumber2 = 12;

Group TwoResponses() {
  Group group;
  group.id = "two";
  group.prompt_tokens = {10};
  group.tails = {{}, {kNumber1}, {kNumber2}};
  group.responses = {ResponseOf({0, 3}), ResponseOf({1, 3})};
  for (data::Response& response : group.responses) response.masks = {1, 0};  // token 3 ends, never penalised
  return group;
}

LabelSettings TwoNumbers(double alpha, Normalization normalization) {
  LabelSettings settings;
  settings.responses = settings.possibilities = 2;
  settings.assignment = data::Assignment::kSequential;
  settings.unlikelihood_alpha = alpha;
  settings.normalization = normalization;
  return settings;
}

Logits TwoResponseLogits(const std::vector<Token>& context) {
  static const std::map<std::vector<Token>, Logits> kLogits = {
      {{10}, {}},  // the prompt's last token predicts nothing that is trained
      {{10, kNumber1}, {2, 1, 0, -1}},
      {{10, kNumber1, 0}, {0, 0, 0, 2}},
      {{10, kNumber1, 1}, {0, 0, 0, 1}},
      {{10, kNumber2}, {0, 2, 1, -1}},
      {{10, kNumber2, 0}, {0, 0, 0, 1}},
      {{10, kNumber2, 1}, {0, 0, 0, 2}},
  };
  return kLogits.at(context);
}

TEST(LossVectorsTest, LossOfBothNormalizations) {
  for (const Layout layout : {Layout::kTree, Layout::kPlain}) {
    const auto run = [&](double alpha, Normalization normalization) {
      const LabelledGroup group =
          Label(MethodNamed("poexft"), TwoResponses(), TwoNumbers(alpha, normalization), 0);
      return PrescribedDecoder(OnlyPass(group, layout), TwoResponseLogits).Run();
    };
    const testing::ReadPass mean = run(0.5, Normalization::kGroupTokenMean);
    EXPECT_NEAR(mean.loss.item<double>(), 0.480852, kVectorDecimals);
    EXPECT_NEAR(mean.likelihood, 0.390471, kVectorDecimals);
    EXPECT_NEAR(mean.unlikelihood, 0.5 * 0.180761, kVectorDecimals);
    const testing::ReadPass sum = run(0.5, Normalization::kSequenceSum);
    EXPECT_NEAR(sum.loss.item<double>(), 0.871323, kVectorDecimals);
    EXPECT_NEAR(sum.likelihood, 0.780943, kVectorDecimals);
    EXPECT_NEAR(run(2.0, Normalization::kSequenceSum).unlikelihood, 0.361521, kVectorDecimals);
  }
}

TEST(LossVectorsTest, TokenValues) {
  const LabelledGroup group =
      Label(MethodNamed("poexft"), TwoResponses(), TwoNumbers(0.5, Normalization::kGroupTokenMean), 0);
  PrescribedDecoder model(OnlyPass(group), TwoResponseLogits);
  const testing::ReadPass result = model.Run();
  // Sequence sums of the positives: a first token's 0.440190 and an end's 0.340753, twice.
  ASSERT_EQ(result.sequence_log_p.size(), 4U);
  std::map<std::pair<int, int>, double> log_p;
  for (std::size_t s = 0; s < 4; ++s) {
    const auto& sequence = group.sequences[static_cast<std::size_t>(model.Pass().sequences[s].sequence)];
    log_p[{sequence.possibility, sequence.response_index}] = result.sequence_log_p[s];
  }
  EXPECT_NEAR((log_p[{1, 0}]), -0.440190 - 0.340753, 2 * kVectorDecimals);
  EXPECT_NEAR((log_p[{2, 1}]), -0.440190 - 0.340753, 2 * kVectorDecimals);
  // Of a negative only what is predicted counts: its end is never penalised.
  EXPECT_NEAR((log_p[{1, 1}]), std::log(0.236883), 3e-6);
}

TEST(LossVectorsTest, GradientOfTheWholeGroup) {
  const double alpha = 0.5;
  const LabelledGroup group =
      Label(MethodNamed("poexft"), TwoResponses(), TwoNumbers(alpha, Normalization::kGroupTokenMean), 0);
  const RowPass pass = OnlyPass(group);
  PrescribedDecoder model(pass, TwoResponseLogits);
  model.Run();
  // d(-log p_y) = p - onehot_y, d(-log(1 - p_y)) = p_y / (1 - p_y) (onehot_y - p); means over 4 and 2 tokens.
  struct Term {
    std::vector<Token> context;
    int likely, penalised;  // tokens, -1: none
  };
  int seen = 0;
  for (const Term& term : {Term{{10, kNumber1}, 0, 1}, Term{{10, kNumber1, 0}, 3, -1},
                           Term{{10, kNumber2}, 1, 0}, Term{{10, kNumber2, 1}, 3, -1}}) {
    const Logits p = Softmax(TwoResponseLogits(term.context));
    for (std::int64_t row = 0; row < pass.length; ++row) {
      if (data::testing::Visible(pass, row) != term.context) continue;
      ++seen;
      const Logits gradient = model.Gradient(row, 4);
      for (int v = 0; v < 4; ++v) {
        const auto at = static_cast<std::size_t>(v);
        double wanted = 0.0;
        if (term.likely >= 0) wanted += (p[at] - (v == term.likely ? 1 : 0)) / 4;
        if (term.penalised >= 0) {
          const double penalised = p[static_cast<std::size_t>(term.penalised)];
          wanted += alpha / 2 * penalised / (1 - penalised) * ((v == term.penalised ? 1 : 0) - p[at]);
        }
        EXPECT_NEAR(gradient[at], wanted, kVectorRounding);
      }
    }
  }
  EXPECT_EQ(seen, 4);  // rows behind a negative's last penalised token do not exist
}

// One row that predicts `target`, with a weight of 1 on -log(1-p).
RowPass OnePenalty(Token target) {
  RowPass pass;
  pass.length = pass.rows = 1;
  pass.token = {0};
  pass.position = {0};
  pass.end = {1};
  pass.edges = {{.source = 0, .target = target, .likelihood = 0.0, .unlikelihood = 1.0}};
  pass.path = {0};
  pass.path_offset = {0, 1};
  pass.sequences = {{0, 0}};
  return pass;
}

TEST(LossVectorsTest, GradientOfAPenalty) {
  PrescribedDecoder model(OnePenalty(1), [](const auto&) { return Logits{2, 1, 0, -1}; });
  EXPECT_NEAR(model.Run().unlikelihood, 0.270344, kVectorDecimals);
  const Logits gradient = model.Gradient(0, 4);
  const double wanted[] = {-0.199880, 0.236883, -0.027051, -0.009951};
  for (std::size_t v = 0; v < 4; ++v) EXPECT_NEAR(gradient[v], wanted[v], kVectorDecimals);
}

ObjectiveSettings Clamped(double clamp) {
  ObjectiveSettings settings;
  settings.values.unlikelihood_clamp = clamp;
  return settings;
}

TEST(LossVectorsTest, ClampCutsValueAndGradient) {
  // Two tokens; p = 1 - 1e-9 of the penalised one.
  const double odds = std::log((1 - 1e-9) / 1e-9);
  PrescribedDecoder model(OnePenalty(0), [&](const auto&) { return Logits{odds, 0.0}; });
  EXPECT_NEAR(model.Run(Clamped(1e-6)).unlikelihood, 13.815511, kVectorDecimals);
  EXPECT_EQ(model.Gradient(0, 2), (Logits{0.0, 0.0}));

  // Without the clamp the value is -log 1e-9 and the gradient p: exact although 1 - p keeps few digits in p.
  EXPECT_NEAR(model.Run(Clamped(0.0)).unlikelihood, -std::log(1e-9), 1e-12);
  EXPECT_NEAR(model.Gradient(0, 2)[0], 1 - 1e-9, kVectorRounding);
  EXPECT_NEAR(model.Gradient(0, 2)[1], -(1 - 1e-9), kVectorRounding);

  // Within the clamp nothing changes.
  PrescribedDecoder mild(OnePenalty(0), [](const auto&) { return Logits{std::log(9.0), 0.0}; });
  EXPECT_NEAR(mild.Run(Clamped(1e-6)).unlikelihood, -std::log(0.1), kVectorRounding);
  EXPECT_NEAR(mild.Gradient(0, 2)[0], 0.9, kVectorRounding);
}

TEST(LossVectorsTest, AGroupWithoutPenalisedTokensAddsZero) {
  Group group = TwoResponses();
  for (data::Response& response : group.responses) response.masks = {0, 0};
  const LabelledGroup labelled =
      Label(MethodNamed("poexft"), group, TwoNumbers(0.5, Normalization::kGroupTokenMean), 0);
  EXPECT_EQ(labelled.penalised_tokens, 0);
  const testing::ReadPass result = PrescribedDecoder(OnlyPass(labelled), TwoResponseLogits).Run();
  EXPECT_EQ(result.unlikelihood, 0.0);
  EXPECT_NEAR(result.loss.item<double>(), 0.390471, kVectorDecimals);
}

// ---- docs/methods.md 2.5: which tokens are penalised ----

TEST(LossVectorsTest, MasksCountTheirTokens) {
  const std::string content_first = "100010001011100";
  const std::string all_first = "100110111101100";
  const std::string repo_compat = "100010011011100";
  Group group;
  group.id = "doctor";
  group.prompt_tokens = {10};
  group.tails = {{}, {kNumber1}, {kNumber2}};
  data::Response doctor;
  for (std::size_t t = 0; t < content_first.size(); ++t) {
    doctor.tokens.push_back(static_cast<Token>(20 + t));
    doctor.masks.push_back(static_cast<std::uint8_t>((content_first[t] - '0') | (all_first[t] - '0') << 1 |
                                                     (repo_compat[t] - '0') << 2));
  }
  group.responses = {ResponseOf({1}), doctor};
  for (const auto& [mode, count] :
       {std::pair{data::MaskMode::kContentFirst, 6}, std::pair{data::MaskMode::kAllFirst, 9},
        std::pair{data::MaskMode::kRepoCompat, 7}}) {
    LabelSettings settings = TwoNumbers(1.0, Normalization::kSequenceSum);
    settings.mask = mode;
    const LabelledGroup labelled = Label(MethodNamed("poexft"), group, settings, 0);
    EXPECT_EQ(labelled.penalised_tokens, count);
    // Every token has probability 1/40 everywhere: the penalty counts tokens, over two positives.
    const testing::ReadPass result =
        PrescribedDecoder(OnlyPass(labelled), [](const auto&) { return Logits(40, 0.0); }).Run();
    EXPECT_NEAR(result.unlikelihood, count * -std::log(39.0 / 40) / 2, kVectorRounding);
  }
}

// ---- docs/methods.md 3.5: the targets {1}, {2}, {10} ----

enum : Token { kOpen, kOne, kTwo, kZero, kClose, kEnd, kElse, kPrompt };

Group Targets(const std::vector<double>& weights) {
  Group group;
  group.id = "numbers";
  group.prompt_tokens = {kPrompt};
  group.tails = {{}};
  group.responses = {ResponseOf({kOpen, kOne, kClose, kEnd}, weights[0]),
                     ResponseOf({kOpen, kTwo, kClose, kEnd}, weights[1]),
                     ResponseOf({kOpen, kOne, kZero, kClose, kEnd}, weights[2])};
  return group;
}

// log of the stated conditionals; what is left goes to a token outside all targets.
Logits TargetLogits(const std::vector<Token>& context) {
  const std::map<Token, std::map<Token, double>> after = {{kPrompt, {{kOpen, 0.9}}},
                                                          {kOpen, {{kOne, 0.6}, {kTwo, 0.3}}},
                                                          {kOne, {{kClose, 0.5}, {kZero, 0.4}}},
                                                          {kTwo, {{kClose, 0.8}}},
                                                          {kZero, {{kClose, 0.7}}},
                                                          {kClose, {{kEnd, 0.95}}}};
  Logits logits(kElse + 1, -1e4);
  double left = 1.0;
  for (const auto& [token, p] : after.at(context.back())) {
    logits[static_cast<std::size_t>(token)] = std::log(p);
    left -= p;
  }
  logits[kElse] = std::log(left);
  return logits;
}

LabelledGroup LabelTargets(const Group& group) {
  return Label(MethodNamed("distribution_matching"), group, {}, 0);
}

struct TargetOutcome {
  double loss;
  TargetFigures figures;
  LabelledGroup labelled;
};

TargetOutcome RunTargets(const std::vector<double>& weights, Layout layout) {
  TargetOutcome outcome{0.0, {}, LabelTargets(Targets(weights))};
  PrescribedDecoder model(OnlyPass(outcome.labelled, layout), TargetLogits);
  const testing::ReadPass result = model.Run();
  std::vector<double> log_p(3);
  for (std::size_t s = 0; s < 3; ++s) {
    log_p[static_cast<std::size_t>(model.Pass().sequences[s].sequence)] = result.sequence_log_p[s];
  }
  EXPECT_NEAR(log_p[0], -1.360627, kVectorDecimals);
  EXPECT_NEAR(log_p[1], -1.583770, kVectorDecimals);
  EXPECT_NEAR(log_p[2], -1.940445, kVectorDecimals);
  outcome.loss = result.loss.item<double>();
  outcome.figures = FiguresOfTargets(outcome.labelled, log_p);
  return outcome;
}

TEST(LossVectorsTest, DistributionMatchingUniform) {
  for (const Layout layout : {Layout::kTree, Layout::kPlain}) {
    const TargetOutcome outcome = RunTargets({1, 1, 1}, layout);
    EXPECT_NEAR(outcome.loss, 1.628281, kVectorDecimals);
    EXPECT_NEAR(outcome.figures.cross_entropy_nats, outcome.loss, kVectorRounding);
    EXPECT_NEAR(outcome.figures.target_entropy_nats, 1.098612, kVectorDecimals);
    EXPECT_NEAR(outcome.labelled.target_entropy_nats, 1.098612, kVectorDecimals);
    EXPECT_NEAR(outcome.figures.kl_nats, 0.529668, kVectorDecimals);
    EXPECT_NEAR(outcome.figures.target_mass, 0.60534, 5.1e-6);  // stated with five decimals
    // Entropy of (0.2565, 0.2052, 0.14364) / 0.60534.
    const double shares[] = {0.2565 / 0.60534, 0.2052 / 0.60534, 0.14364 / 0.60534};
    double entropy = 0.0;
    for (const double share : shares) entropy -= share * std::log(share);
    EXPECT_NEAR(outcome.figures.entropy_nats, entropy, 1e-9);
    // Early stop at gamma 0.2: not reached.
    EXPECT_NEAR(1.2 * outcome.labelled.target_entropy_nats, 1.318335, kVectorDecimals);
    EXPECT_GT(outcome.loss, 1.318335);
  }
}

TEST(LossVectorsTest, DistributionMatchingWeighted) {
  // Weights are shares of their sum.
  const TargetOutcome outcome = RunTargets({2, 1, 1}, Layout::kTree);
  EXPECT_NEAR(outcome.loss, 1.561367, kVectorDecimals);
  EXPECT_NEAR(outcome.figures.target_entropy_nats, 1.039721, kVectorDecimals);
  EXPECT_NEAR(outcome.figures.kl_nats, 0.521646, kVectorDecimals);
}

TEST(LossVectorsTest, DistributionMatchingGradientIsTheMassThatPassesARow) {
  // Of the row after "{": p* sends 0.75 on through "1" and 0.25 through "2" (weights 2, 1, 1), in sum 1.
  const LabelledGroup labelled = LabelTargets(Targets({2, 1, 1}));
  const RowPass pass = OnlyPass(labelled);
  PrescribedDecoder model(pass, TargetLogits);
  model.Run();
  for (std::int64_t row = 0; row < pass.length; ++row) {
    const std::vector<Token> context = data::testing::Visible(pass, row);
    const Logits gradient = model.Gradient(row, kElse + 1);
    if (context == std::vector<Token>{kPrompt, kOpen}) {
      EXPECT_NEAR(gradient[kOne], 0.6 - 0.75, kVectorRounding);
      EXPECT_NEAR(gradient[kTwo], 0.3 - 0.25, kVectorRounding);
      EXPECT_NEAR(gradient[kElse], 0.1, kVectorRounding);
    }
    if (context == std::vector<Token>{kPrompt, kOpen, kOne}) {  // 0.5 closes, 0.25 goes on
      EXPECT_NEAR(gradient[kClose], 0.75 * 0.5 - 0.5, kVectorRounding);
      EXPECT_NEAR(gradient[kZero], 0.75 * 0.4 - 0.25, kVectorRounding);
    }
  }
}

TEST(LossVectorsTest, EntropyOfTheBinomialExample) {
  Group group;  // B(10, 0.2)
  group.id = "binomial";
  group.prompt_tokens = {kPrompt};
  group.tails = {{}};
  double choose = 1.0;
  for (int k = 0; k <= 10; ++k) {
    group.responses.push_back(ResponseOf({k, 20}, choose * std::pow(0.2, k) * std::pow(0.8, 10 - k)));
    choose = choose * (10 - k) / (k + 1);
  }
  const double entropy = LabelTargets(group).target_entropy_nats;
  EXPECT_NEAR(entropy, 1.621929, kVectorDecimals);
  EXPECT_NEAR(1.2 * entropy, 1.946315, kVectorDecimals);
}

TEST(LossVectorsTest, FiguresOfASolvedTask) {
  const LabelledGroup labelled = LabelTargets(Targets({1, 1, 0}));
  const double half = std::log(0.5);
  const TargetFigures figures = FiguresOfTargets(labelled, {half, half, -HUGE_VAL});
  EXPECT_NEAR(figures.kl_nats, 0.0, kVectorRounding);
  EXPECT_NEAR(figures.target_mass, 1.0, kVectorRounding);
  EXPECT_NEAR(figures.entropy_nats, std::log(2.0), kVectorRounding);
}

TEST(LossVectorsTest, PrefixTrapIsRefusedAndNamed) {
  // The digits of 1..10 without a terminator: the optimum 2.163956 would lie below H = ln 10, because "1"
  // gets the mass of "10".
  EXPECT_NEAR(-(0.8 * std::log(0.1) + 0.2 * std::log(0.2)), 2.163956, kVectorDecimals);
  Group group;
  group.id = "one to ten";
  group.prompt_tokens = {kPrompt};
  group.tails = {{}};
  for (Token digit = 1; digit <= 9; ++digit) group.responses.push_back(ResponseOf({digit}));
  group.responses.push_back(ResponseOf({1, 0}));
  try {
    LabelTargets(group);
    FAIL() << "accepted";
  } catch (const data::DataError& error) {
    EXPECT_NE(std::string(error.what()).find("group 'one to ten'"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("target 0"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("target 9"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace plural::trainer
