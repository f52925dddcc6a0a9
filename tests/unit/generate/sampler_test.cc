#include "trainer/generate/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <vector>

#include "data/random.h"

namespace plural::trainer {
namespace {

// Probabilities 0.4, 0.3, 0.2, 0.1 of tokens 0..3.
const std::vector<double> kLogits = {std::log(4.0), std::log(3.0), std::log(2.0), std::log(1.0)};

data::Token Sample(const std::vector<double>& logits, const SamplingSettings& settings, double uniform) {
  TokenSampler<double> sampler;
  sampler.Read(logits, settings);
  return sampler.Draw(uniform);
}

// Share of each token over an even grid of uniforms: exact up to one grid step.
std::map<data::Token, double> Shares(const SamplingSettings& settings, int grid = 12000) {
  std::map<data::Token, double> shares;
  for (int i = 0; i < grid; ++i) {
    shares[Sample(kLogits, settings, (i + 0.5) / grid)] += 1.0 / grid;
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
  for (int i = 0; i < 1000; ++i) seen[Sample(tied, {.top_k = 2}, (i + 0.5) / 1000)]++;
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
  EXPECT_EQ(Sample(kLogits, {}, last), 3);
  EXPECT_EQ(Sample(kLogits, {.top_k = 2}, last), 1);
}

TEST(Sampler, LogProbabilityIgnoresTheSizeOfLogits) {
  const std::vector<float> logits = {1000.0F, 1001.0F};
  TokenSampler<float> sampler;
  sampler.Read(logits, {});
  // log(1 / (1 + e)). exp of the vector loops is right to 2 units in the last place of fp32.
  EXPECT_NEAR(sampler.LogProbability(0), -std::log1p(std::exp(1.0)), 2.4e-7);
}

// The definition, over all tokens, as plainly as it can be written.
data::Token SampleByDefinition(const std::vector<double>& logits, const SamplingSettings& settings,
                               double uniform) {
  const std::size_t size = logits.size();
  std::vector<std::size_t> order(size);
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return logits[a] > logits[b]; });
  std::vector<double> weights(size);
  for (std::size_t i = 0; i < size; ++i) {
    weights[i] = std::exp((logits[i] - logits[order[0]]) / settings.temperature);
  }
  if (settings.top_k > 0 && settings.top_k < static_cast<std::int64_t>(size)) {
    const double edge = logits[order[static_cast<std::size_t>(settings.top_k - 1)]];
    for (std::size_t i = 0; i < size; ++i) weights[i] = logits[i] < edge ? 0.0 : weights[i];
  }
  const double kept = std::accumulate(weights.begin(), weights.end(), 0.0);
  double mass = 0.0;
  for (const std::size_t token : order) {
    const double weight = weights[token];
    if (settings.top_p < 1.0 && mass > 0.0 && mass >= settings.top_p * kept) weights[token] = 0.0;
    mass += weight;
  }
  const double threshold = uniform * std::accumulate(weights.begin(), weights.end(), 0.0);
  double cumulative = 0.0;
  for (std::size_t i = 0; i < size; ++i) {
    cumulative += weights[i];
    if (cumulative > threshold) return static_cast<data::Token>(i);
  }
  return -1;
}

// Draws near an edge of the cumulative sum may fall to either side by rounding: the edges of 5,000 tokens are
// moved by less than 1e-11 of the mass, so 400 random draws meet one with a probability below 1e-5; the
// seed is fixed.
TEST(Sampler, EqualsItsDefinitionOverALargeVocabulary) {
  data::CounterRandom random{data::MixKey(1, data::Purpose::kSampling)};
  std::vector<double> logits(5000);
  TokenSampler<double> sampler;
  const std::vector<SamplingSettings> cases = {
      {},
      {.temperature = 0.7},
      {.top_k = 1},
      {.top_k = 50},
      {.temperature = 1.5, .top_k = 700},
      {.top_k = 4999},
      {.top_p = 0.5},
      {.top_p = 0.97},
      {.temperature = 2.0, .top_p = 0.999999},
      {.temperature = 0.5, .top_k = 60, .top_p = 0.9},
  };
  for (const SamplingSettings& settings : cases) {
    for (int row = 0; row < 4; ++row) {
      // Some tie, some are impossible.
      for (double& z : logits) z = std::round(random.Uniform() * 4000.0) / 250.0;
      for (std::size_t i = 0; i < logits.size(); i += 97)
        logits[i] = -std::numeric_limits<double>::infinity();
      sampler.Read(logits, settings);
      for (int draw = 0; draw < 10; ++draw) {
        const double uniform = random.Uniform();
        EXPECT_EQ(sampler.Draw(uniform), SampleByDefinition(logits, settings, uniform))
            << "temperature " << settings.temperature << " top_k " << settings.top_k << " top_p "
            << settings.top_p;
      }
    }
  }
}

TEST(Sampler, ExcludedTokensAreNotDrawnButKeepTheirProbability) {
  const std::vector<data::Token> excluded = {0};
  TokenSampler<double> sampler;
  for (const SamplingSettings& settings :
       {SamplingSettings{}, SamplingSettings{.temperature = 0.0}, SamplingSettings{.top_k = 1}}) {
    sampler.Read(kLogits, settings, excluded);
    EXPECT_EQ(sampler.Draw(0.0), 1);
    EXPECT_NEAR(sampler.LogProbability(0), std::log(0.4), 1e-15);
  }
}

}  // namespace
}  // namespace plural::trainer
