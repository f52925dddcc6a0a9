// Exact figures: against closed forms, and against the plain layout.

#include "trainer/method/evaluation.h"

#include <ATen/core/Tensor.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "tests/unit/support/random_groups.h"
#include "tests/unit/support/tiny_decoder.h"

namespace plural::trainer {
namespace {

// fp64 over some hundred products: 1e-12 is rounding, a wrong term far above 1e-10.
constexpr double kTolerance = 1e-10;

data::PackSettings Plain() {
  data::PackSettings pack;
  pack.layout = data::Layout::kPlain;
  return pack;
}

data::Group Question() {
  data::Group group;
  group.id = "question";
  group.prompt_tokens = {1, 5, 7};
  group.tails = {{9}, {4, 9}, {6, 9}, {4, 6, 9}};
  for (const std::vector<data::Token>& tokens :
       {std::vector<data::Token>{3, 8, 23}, {3, 2, 2, 23}, {11, 23}}) {
    group.responses.push_back(data::testing::ResponseOf(tokens));
  }
  return group;
}

TEST(Possibilities, NumbersThatDecideEverythingCarryAllTheEntropy) {
  constexpr double kNever = -std::numeric_limits<double>::infinity();
  const PossibilityFigures figures = FiguresOfPossibilities({{-1.0, kNever}, {kNever, -7.0}});
  EXPECT_NEAR(figures.mixture_entropy_nats, std::log(2.0), kTolerance);
  EXPECT_NEAR(figures.information_nats, std::log(2.0), kTolerance);
}

TEST(Possibilities, NumbersThatDecideNothingCarryNone) {
  const PossibilityFigures figures = FiguresOfPossibilities({{-1.0, -2.0}, {-4.0, -5.0}});
  EXPECT_NEAR(figures.information_nats, 0.0, kTolerance);
  const double p = 1.0 / (1.0 + std::exp(-1.0));
  EXPECT_NEAR(figures.mixture_entropy_nats, -p * std::log(p) - (1 - p) * std::log1p(-p), kTolerance);
}

TEST(Possibilities, TreeOfAllPairsEqualsOneRowAPair) {
  const Decoder model = testing::TinyDecoder({});
  const auto tree = EvaluatePossibilities(model, Question(), {});
  const auto plain = EvaluatePossibilities(model, Question(), Plain());
  ASSERT_TRUE(tree && plain);
  EXPECT_GT(tree->information_nats, 1e-3);
  EXPECT_LE(tree->information_nats, tree->mixture_entropy_nats);
  EXPECT_LE(tree->mixture_entropy_nats, std::log(3.0));
  EXPECT_NEAR(tree->information_nats, plain->information_nats, kTolerance);
  EXPECT_NEAR(tree->mixture_entropy_nats, plain->mixture_entropy_nats, kTolerance);

  data::Group single = Question();
  single.responses.resize(1);
  EXPECT_FALSE(EvaluatePossibilities(model, single, {}));
}

TEST(Evaluate, LikelihoodIsThatOfTheResponsesWithoutANumber) {
  const Decoder model = testing::TinyDecoder({});
  data::Group group = Question();
  const GroupFigures figures = EvaluateGroup(model, group, false, {});
  EXPECT_EQ(figures.sequences, 3);
  EXPECT_EQ(figures.response_tokens, 9);
  EXPECT_NEAR(figures.logprob_nats, EvaluateGroup(model, group, false, Plain()).logprob_nats, kTolerance);
  group.tails[1] = {2, 2, 2};  // another wording of a number changes nothing
  EXPECT_EQ(figures.logprob_nats, EvaluateGroup(model, group, false, {}).logprob_nats);
}

TEST(Evaluate, ExpectedCoverageIsThatOfIndependentDraws) {
  const Decoder model = testing::TinyDecoder({});
  data::Group group = Question();
  double expected = 0.0;
  for (std::size_t r = 0; r < group.responses.size(); ++r) {
    data::Group one = group;
    one.responses = {group.responses[r]};
    expected += 1.0 - std::pow(1.0 - std::exp(EvaluateGroup(model, one, true, {}).logprob_nats), 1000.0);
  }
  // The naive power loses digits of p against 1: 1000 * 1e-16 / p-free terms stay below 1e-12.
  EXPECT_NEAR(EvaluateGroup(model, group, true, {}).expected_coverage, expected, kTolerance);
}

TEST(TokenKl, IsZeroAgainstItselfAndPositiveAgainstTheAdapter) {
  const Decoder tuned = testing::TinyDecoder({});
  const Decoder base = tuned.WithoutAdapter();
  EXPECT_EQ(TokenKl(tuned, tuned, Question(), {}), 0.0);
  const double kl = TokenKl(base, tuned, Question(), {});
  EXPECT_GT(kl, 1e-3);
  EXPECT_NEAR(kl, TokenKl(base, tuned, Question(), Plain()), kTolerance);
  EXPECT_GT(std::abs(kl - TokenKl(tuned, base, Question(), {})), 1e-6);  // the direction matters
}

TEST(TokenKl, CountsASharedTokenOnceForEachResponse) {
  const Decoder tuned = testing::TinyDecoder({});
  const Decoder base = tuned.WithoutAdapter();
  double apart = 0.0;
  for (const data::Response& response : Question().responses) {
    data::Group one = Question();
    one.responses = {response};
    apart += TokenKl(base, tuned, one, {});
  }
  EXPECT_NEAR(TokenKl(base, tuned, Question(), {}), apart, kTolerance);
}

TEST(Bootstrap, IntervalHoldsTheMeanAndShrinksWithTheSpread) {
  std::vector<double> values, ones(100, 1.0);
  for (int i = 0; i < 100; ++i) values.push_back(i % 2);
  const auto interval = BootstrapRatio(values, ones);
  ASSERT_TRUE(interval);
  // The mean of 100 fair coins has deviation 0.05; the 95 % interval is about 0.5 +- 0.098. A thousand
  // resamples place its ends within some 0.02.
  EXPECT_NEAR(interval->low, 0.402, 0.03);
  EXPECT_NEAR(interval->high, 0.598, 0.03);
  const auto constant = BootstrapRatio(std::vector<double>(5, 3.0), std::vector<double>(5, 2.0));
  ASSERT_TRUE(constant);
  EXPECT_DOUBLE_EQ(constant->low, 1.5);
  EXPECT_DOUBLE_EQ(constant->high, 1.5);
  EXPECT_FALSE(BootstrapRatio(std::vector<double>{1.0}, std::vector<double>{1.0}));
}

}  // namespace
}  // namespace plural::trainer
