#include "trainer/generate/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <vector>

namespace plural::trainer {
namespace {

// Probabilities 0.4, 0.3, 0.2, 0.1 of tokens 0..3.
const std::vector<double> kLogits = {std::log(4.0), std::log(3.0), std::log(2.0), std::log(1.0)};

// Share of each token over an even grid of uniforms: exact up to one grid step.
std::map<data::Token, double> Shares(const SamplingSettings& settings, int grid = 12000) {
  std::map<data::Token, double> shares;
  for (int i = 0; i < grid; ++i) {
    shares[SampleToken<double>(kLogits, settings, (i + 0.5) / grid)] += 1.0 / grid;
  }
  return shares;
}

void ExpectShares(const SamplingSettings& settings, const std::vector<double>& expected) {
  auto shares = Shares(settings);
  for (std::size_t token = 0; token < expected.size(); ++token) {
    EXPECT_NEAR(shares[static_cast<data::Token>(token)], expected[token], 1e-4) << "token " << token;
  }
}

TEST(Sampler, DrawsTheDistributionItself) { ExpectShares({}, {0.4, 0.3, 0.2, 0.1}); }

TEST(Sampler, TemperatureRaisesProbabilitiesToItsInverse) {
  // 16, 9, 4, 1 of 30 at temperature 0.5.
  ExpectShares({.temperature = 0.5}, {16 / 30.0, 9 / 30.0, 4 / 30.0, 1 / 30.0});
}

TEST(Sampler, TemperatureZeroTakesTheMostLikely) { ExpectShares({.temperature = 0.0}, {1, 0, 0, 0}); }

TEST(Sampler, TopKKeepsTheMostLikelyAndTies) {
  ExpectShares({.top_k = 2}, {4 / 7.0, 3 / 7.0, 0, 0});
  const std::vector<double> tied = {0.0, 1.0, 0.0, 0.0};
  int kept = 0;
  std::map<data::Token, int> seen;
  for (int i = 0; i < 1000; ++i) seen[SampleToken<double>(tied, {.top_k = 2}, (i + 0.5) / 1000)]++;
  for (const auto& [token, count] : seen) kept += count > 0;
  EXPECT_EQ(kept, 4) << "three tokens tie for the second place";
}

TEST(Sampler, TopPKeepsTheSmallestSetThatReachesIt) {
  ExpectShares({.top_p = 0.7}, {4 / 7.0, 3 / 7.0, 0, 0});  // 0.4 + 0.3 reaches 0.7
  ExpectShares({.top_p = 0.71}, {4 / 9.0, 3 / 9.0, 2 / 9.0, 0});
  ExpectShares({.top_p = 1e-9}, {1, 0, 0, 0});  // always at least one
}

TEST(Sampler, TopPComesAfterTopKAndTemperature) {
  // top-k 3 renormalises to 4/9, 3/9, 2/9, so 0.75 is reached by two tokens (7/9), which it is not before.
  ExpectShares({.top_k = 3, .top_p = 0.75}, {4 / 7.0, 3 / 7.0, 0, 0});
}

TEST(Sampler, TheLargestUniformStaysInside) {
  const double last = 1.0 - std::numeric_limits<double>::epsilon() / 2;
  EXPECT_EQ(SampleToken<double>(kLogits, {}, last), 3);
  EXPECT_EQ(SampleToken<double>(kLogits, {.top_k = 2}, last), 1);
}

TEST(Sampler, LogProbabilityIgnoresTheSizeOfLogits) {
  std::vector<float> logits = {1000.0F, 1001.0F};
  // log(1 / (1 + e)).
  EXPECT_NEAR(LogProbability<float>(logits, 0), -std::log1p(std::exp(1.0)), 1e-12);
}

}  // namespace
}  // namespace plural::trainer
