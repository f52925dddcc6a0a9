// Diverse beam search against worked examples: a model of four tokens whose next token depends on the last
// one.

#include "trainer/generate/diverse_beam_search.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "data/error.h"
#include "tests/unit/support/tiny_decoder.h"

namespace plural::trainer {
namespace {

constexpr data::Token kA = 0, kB = 1, kC = 2, kEnd = 3;
constexpr std::int64_t kVocabulary = 4;
constexpr data::Token kStart = -1;

// p(next | last token).
using Table = std::map<data::Token, std::vector<double>>;

const Table kTable = {{kStart, {.55, .30, .10, .05}},
                      {kA, {.10, .50, .20, .20}},
                      {kB, {.25, .10, .25, .40}},
                      {kC, {.30, .30, .10, .30}}};

std::vector<BeamHypothesis> Search(const DiverseBeamSettings& settings, const Table& table = kTable,
                                   data::Token padding = -1) {
  DiverseBeamSearch search(settings, {kEnd}, padding);
  std::vector<data::Token> last = {kStart};
  for (std::int64_t step = 0; !last.empty(); ++step) {
    EXPECT_LT(step, settings.max_new_tokens);
    std::vector<double> log_p;
    for (const data::Token token : last) {
      for (const double p : table.at(token)) log_p.push_back(std::log(p));
    }
    const auto next = search.Advance(log_p, kVocabulary);
    EXPECT_EQ(next.row.size(), next.token.size());
    for (const std::int64_t row : next.row) EXPECT_LT(row, static_cast<std::int64_t>(last.size()));
    last = next.token;
  }
  return search.Hypotheses();
}

std::string Text(const BeamHypothesis& hypothesis) {
  std::string text;
  for (const data::Token token : hypothesis.tokens) text += static_cast<char>('a' + token);
  return text + (hypothesis.finished ? "." : "");
}

struct Expected {
  double score;
  std::string text;
  std::int64_t group;
};

void ExpectHypotheses(const std::vector<BeamHypothesis>& found, const std::vector<Expected>& expected) {
  ASSERT_EQ(found.size(), expected.size());
  for (std::size_t i = 0; i < found.size(); ++i) {
    EXPECT_EQ(Text(found[i]), expected[i].text) << i;
    EXPECT_EQ(found[i].group, expected[i].group) << i;
    EXPECT_NEAR(found[i].score, expected[i].score, 5e-7) << i;  // stated to six decimals
  }
}

DiverseBeamSettings ThreeOfOne(double penalty) {
  return {.beams = 3, .groups = 3, .diversity_penalty = penalty, .max_new_tokens = 3};
}

// docs/methods.md 9.4.
TEST(DiverseBeamSearch, WithoutPenaltyAllGroupsFindTheSame) {
  ExpectHypotheses(Search(ThreeOfOne(0.0)),
                   {{-0.735758, "ab.", 2}, {-0.735758, "ab.", 1}, {-0.735758, "ab.", 0}});
}

// The penalised hypotheses score lower than what the model says of them, log(.55 * .5 * .4) / 3 = -0.735758
// and log(.30 * .40) / 2 = -1.060132: a search that forgets the penalty after choosing fails here.
TEST(DiverseBeamSearch, ThePenaltyStaysInTheScore) {
  const auto found = Search(ThreeOfOne(0.5));
  ExpectHypotheses(found, {{-0.735758, "ab.", 0}, {-1.060132, "b.", 2}, {-1.069092, "ab.", 1}});
  EXPECT_NEAR(found[2].logprob, std::log(.55 * .5 * .4), 1e-12);
  EXPECT_NEAR(found[2].score, (found[2].logprob - 2 * 0.5) / 3, 1e-12);
}

TEST(DiverseBeamSearch, ALargePenaltyDrivesGroupsApart) {
  ExpectHypotheses(Search(ThreeOfOne(5.0)),
                   {{-0.735758, "ab.", 0}, {-1.060132, "b.", 1}, {-1.753279, "c.", 2}});
}

// The last one is b a b, (log(.30 * .25 * .50) - 0.5) / 3 = -1.261138. Of equal candidates the smaller token
// goes first: group 0 holds "aba", not "abc".
TEST(DiverseBeamSearch, TwoGroupsOfTwo) {
  ExpectHypotheses(
      Search({.beams = 4, .groups = 2, .diversity_penalty = 0.5, .max_new_tokens = 3}),
      {{-0.735758, "ab.", 0}, {-0.892426, "aba", 0}, {-1.069092, "ab.", 1}, {-1.261138, "bab", 1}});
}

// One group is beam search: it finds the best of all hypotheses where the beams hold every one.
TEST(DiverseBeamSearch, OneWideGroupFindsTheBestOfAll) {
  const auto found = Search({.beams = 27, .groups = 1, .diversity_penalty = 5.0, .max_new_tokens = 3});
  double best = -1e9;
  const auto consider = [&](double p, int length) { best = std::max(best, std::log(p) / length); };
  consider(kTable.at(kStart)[kEnd], 1);
  for (const data::Token a : {kA, kB, kC}) {
    const double pa = kTable.at(kStart)[static_cast<std::size_t>(a)];
    consider(pa * kTable.at(a)[kEnd], 2);
    for (const data::Token b : {kA, kB, kC}) {
      const double pb = pa * kTable.at(a)[static_cast<std::size_t>(b)];
      for (const data::Token c : {kA, kB, kC, kEnd}) {
        consider(pb * kTable.at(b)[static_cast<std::size_t>(c)], 3);
      }
    }
  }
  ASSERT_FALSE(found.empty());
  EXPECT_NEAR(found.front().score, best, 1e-12);
}

// The first group knows of no other: its hypotheses do not depend on the penalty or on the later groups.
TEST(DiverseBeamSearch, EarlierGroupsDoNotDependOnLaterOnes) {
  const auto of_group = [](const std::vector<BeamHypothesis>& all, std::int64_t group) {
    std::vector<std::pair<std::string, double>> found;
    for (const auto& hypothesis : all) {
      if (hypothesis.group == group) found.emplace_back(Text(hypothesis), hypothesis.score);
    }
    return found;
  };
  const auto one = Search({.beams = 2, .groups = 1, .diversity_penalty = 0.5, .max_new_tokens = 3});
  const auto two = Search({.beams = 4, .groups = 2, .diversity_penalty = 0.5, .max_new_tokens = 3});
  const auto three = Search({.beams = 6, .groups = 3, .diversity_penalty = 0.5, .max_new_tokens = 3});
  const auto strong = Search({.beams = 6, .groups = 3, .diversity_penalty = 9.0, .max_new_tokens = 3});
  EXPECT_EQ(of_group(one, 0), of_group(three, 0));
  EXPECT_EQ(of_group(one, 0), of_group(strong, 0));
  EXPECT_EQ(of_group(two, 1), of_group(three, 1));
}

// The end is most likely at once. Every group closes it without penalty, since a closed hypothesis's beam
// goes on with its next token and only that one is counted.
TEST(DiverseBeamSearch, TheEndIsNeverPenalised) {
  const Table table = {
      {kStart, {.2, .1, .1, .6}}, {kA, {.7, .1, .1, .1}}, {kB, {.7, .1, .1, .1}}, {kC, {.7, .1, .1, .1}}};
  for (const BeamHypothesis& hypothesis : Search(ThreeOfOne(5.0), table)) {
    EXPECT_EQ(Text(hypothesis), ".");
    EXPECT_NEAR(hypothesis.score, std::log(.6), 1e-12);
  }
}

// Second step: "a." stands at .275, "ac" at .175, "b." at .168, "ba" at .100. Two beams go on, and "b." ranks
// third: it is not closed, though its score, log(.168) / 2 = -0.892, is above that of all that follows.
TEST(DiverseBeamSearch, AnEndBelowTheBeamsIsIgnored) {
  const Table table = {{kStart, {.50, .40, .05, .05}},
                       {kA, {.05, .05, .35, .55}},
                       {kB, {.25, .20, .13, .42}},
                       {kC, {.25, .25, .25, .25}}};
  const auto found = Search({.beams = 2, .groups = 1, .diversity_penalty = 0.0, .max_new_tokens = 3}, table);
  ASSERT_EQ(found.size(), 2U);
  EXPECT_EQ(Text(found[0]), "a.");
  EXPECT_EQ(Text(found[1]), "ba.");
  EXPECT_LT(found[1].score, std::log(.168) / 2);
}

// A group that is full goes on while an open beam may still do better: here "." closes first, at log .4,
// but "a" stands at log .5 and "aa..." ends far above.
TEST(DiverseBeamSearch, AFullGroupGoesOnWhileItMayImprove) {
  const Table table = {{kStart, {.45, .05, .05, .45}},
                       {kA, {.98, .005, .005, .01}},
                       {kB, {.3, .3, .3, .1}},
                       {kC, {.3, .3, .3, .1}}};
  const auto found = Search({.beams = 2, .groups = 1, .diversity_penalty = 0.0, .max_new_tokens = 6}, table);
  ASSERT_EQ(found.size(), 2U);
  EXPECT_EQ(Text(found[0]), "aaaaaa");
}

// Group 0 closes "a." at the second token and is done. In the third step it "chooses" padding, which group 1
// is then penalised for, as in transformers.
TEST(DiverseBeamSearch, AClosedGroupChoosesPadding) {
  const Table table = {{kStart, {.55, .30, .10, .05}},
                       {kA, {.05, .05, .10, .80}},
                       {kB, {.20, .40, .35, .05}},
                       {kC, {.25, .25, .25, .25}}};
  const DiverseBeamSettings settings{.beams = 2, .groups = 2, .diversity_penalty = 1.0, .max_new_tokens = 3};
  EXPECT_EQ(Text(Search(settings, table, -1).at(1)), "bbb");
  EXPECT_EQ(Text(Search(settings, table, kB).at(1)), "bbc");
}

std::vector<data::Group> Prompts() {
  std::vector<data::Group> prompts(3);
  for (std::size_t p = 0; p < prompts.size(); ++p) {
    prompts[p].id = "prompt-" + std::to_string(p);
    for (std::size_t t = 0; t < 3 + 2 * p; ++t) {
      prompts[p].prompt_tokens.push_back(static_cast<data::Token>((5 * p + 3 * t + 2) % 23));
    }
    prompts[p].tails = {{9}};
  }
  return prompts;
}

TEST(DiverseBeamSearch, AnswersDoNotDependOnTheBatch) {
  const Decoder model = testing::TinyDecoder({});
  const DiverseBeamSettings settings{.beams = 4, .groups = 2, .diversity_penalty = 0.5, .max_new_tokens = 12};
  const auto together = GenerateDiverseBeams(model, Prompts(), settings);
  for (std::size_t p = 0; p < together.size(); ++p) {
    const auto alone = GenerateDiverseBeams(model, {Prompts()[p]}, settings);
    ASSERT_EQ(alone[0].responses.size(), 4U);
    EXPECT_EQ(alone[0].decode_steps, together[p].decode_steps);
    EXPECT_EQ(alone[0].token_forwards, together[p].token_forwards);
    for (std::size_t i = 0; i < 4; ++i) {
      EXPECT_EQ(alone[0].responses[i].tokens, together[p].responses[i].tokens);
      // Sums of 12 terms of size 10 in fp64.
      EXPECT_NEAR(*alone[0].responses[i].score, *together[p].responses[i].score, 1e-12);
    }
  }
}

TEST(DiverseBeamSearch, RefusesAPromptThatDoesNotFit) {
  const Decoder model = testing::TinyDecoder({});
  EXPECT_THROW(GenerateDiverseBeams(model, Prompts(), {.max_new_tokens = 64}), data::DataError);
}

}  // namespace
}  // namespace plural::trainer
