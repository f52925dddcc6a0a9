// Ratings: the worked example, and the token tree against one sequence at a time.

#include "trainer/generate/rerank.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "data/error.h"
#include "tests/unit/support/tiny_decoder.h"
#include "trainer/method/evaluation.h"

namespace plural::trainer {
namespace {

// docs/methods.md 9.6.
TEST(Rating, WorkedExample) {
  std::vector<double> log_p;
  for (const double p : {.01, .01, .02, .03, .05, .08, .15, .30, .25, .10}) log_p.push_back(std::log(p));
  const Rating rating = RatingOf(log_p);
  EXPECT_NEAR(rating.expected, 7.64, 1e-12);
  EXPECT_NEAR(rating.incoherent_mass, 0.12, 1e-12);
  // Only the ratings count, however little of the model's mass they have.
  for (double& value : log_p) value -= 900.0;
  EXPECT_NEAR(RatingOf(log_p).expected, 7.64, 1e-10);
}

TEST(Rating, ARatingWithoutMass) {
  std::vector<double> log_p(10, -INFINITY);
  log_p[3] = -5.0;
  EXPECT_EQ(RatingOf(log_p), (Rating{4.0, 1.0}));
}

data::Group Question() {
  data::Group question;
  question.id = "prompt";
  question.prompt_tokens = {1, 7, 8, 9};
  question.tails = {{10, 11}};
  for (data::Token rating = 0; rating < 9; ++rating)
    question.responses.push_back({{12 + rating, 3}, 1.0, {0, 0}});
  question.responses.push_back({{12, 4, 3}, 1.0, {0, 0, 0}});  // "10" begins like "1"
  return question;
}

// Shared beginnings, one the beginning of another, equal ones, an empty one.
const std::vector<std::vector<data::Token>> kResponses = {{5, 6, 7}, {5, 6}, {5, 6, 7}, {}, {2, 2, 2, 2, 2}};

TEST(Rating, TheTreeRatesAsOneByOne) {
  const Decoder model = testing::TinyDecoder({});
  const data::Group question = Question();
  const auto together = RateResponses(model, question, kResponses);
  ASSERT_EQ(together.size(), kResponses.size());
  for (std::size_t i = 0; i < kResponses.size(); ++i) {
    // Every rating on its own, in a forward of its own.
    std::vector<double> log_p;
    for (const data::Response& rating : question.responses) {
      data::LabelledSequence sequence;
      std::vector<data::Token> asked = question.prompt_tokens;
      asked.insert(asked.end(), kResponses[i].begin(), kResponses[i].end());
      asked.insert(asked.end(), question.tails[0].begin(), question.tails[0].end());
      sequence.prefix = std::move(asked);
      sequence.response = rating.tokens;
      sequence.likelihood = sequence.unlikelihood = std::vector<double>(rating.tokens.size(), 0.0);
      data::LabelledGroup alone;
      alone.sequences = {sequence};
      log_p.push_back(SequenceLogP(model, alone, {.layout = data::Layout::kPlain}).at(0));
    }
    // fp64 through two layers: some 100 roundings of values near 10, times ratings up to 10.
    EXPECT_NEAR(together[i].expected, RatingOf(log_p).expected, 1e-11) << i;
    EXPECT_NEAR(together[i].incoherent_mass, RatingOf(log_p).incoherent_mass, 1e-11) << i;
  }
  EXPECT_EQ(together[0], together[2]);
  EXPECT_GT(std::abs(together[0].expected - together[1].expected), 1e-4) << "the response must matter";
}

GeneratedPrompt Candidates() {
  GeneratedPrompt prompt;
  for (std::size_t i = 0; i < kResponses.size(); ++i) {
    GeneratedResponse& response = prompt.responses.emplace_back();
    response.index = static_cast<std::int64_t>(i);
    response.tokens = kResponses[i];
  }
  return prompt;
}

TEST(Rerank, KeepsTheBestAndOfEqualsTheFirst) {
  const Decoder model = testing::TinyDecoder({});
  const auto ratings = RateResponses(model, Question(), kResponses);
  GeneratedPrompt all = Candidates();
  Rerank(model, Question(), 5, all);
  ASSERT_EQ(all.responses.size(), 5U);
  for (std::size_t i = 0; i < 5; ++i) {
    const GeneratedResponse& response = all.responses[i];
    EXPECT_EQ(*response.rating, ratings[static_cast<std::size_t>(response.index)].expected);
    if (i == 0) continue;
    const GeneratedResponse& better = all.responses[i - 1];
    EXPECT_GE(*better.rating, *response.rating);
    EXPECT_TRUE(*better.rating > *response.rating || better.index < response.index);
  }
  EXPECT_EQ(all.decode_steps, 1);
  EXPECT_GT(all.token_forwards, 0);
  GeneratedPrompt two = Candidates();
  Rerank(model, Question(), 2, two);
  ASSERT_EQ(two.responses.size(), 2U);
  EXPECT_EQ(two.responses[1].index, all.responses[1].index);
}

// The base model is asked: what an adapter says does not change a rating.
TEST(Rerank, TheAdapterIsOff) {
  const Decoder model = testing::TinyDecoder({});
  const auto base = RateResponses(model.WithoutAdapter(), Question(), kResponses);
  EXPECT_GT(std::abs(base[0].expected - RateResponses(model, Question(), kResponses)[0].expected), 1e-4);
}

TEST(Rerank, Refuses) {
  const Decoder model = testing::TinyDecoder({});
  GeneratedPrompt few = Candidates();
  EXPECT_THROW(Rerank(model, Question(), 6, few), data::DataError);
  GeneratedPrompt long_one = Candidates();
  long_one.responses[0].tokens.assign(60, 5);  // the context is 64
  EXPECT_THROW(Rerank(model, Question(), 1, long_one), data::DataError);
}

}  // namespace
}  // namespace plural::trainer
