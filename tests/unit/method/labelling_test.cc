#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "data/error.h"
#include "data/possibilities.h"
#include "tests/unit/support/random_groups.h"
#include "trainer/method/method.h"

namespace plural::data {
namespace {

using trainer::Label;
using trainer::MethodNamed;

using testing::ResponseOf;

// Four responses of 2, 3, 1 and 2 tokens; the first token of each is penalised in a negative.
Group FourResponses() {
  Group group;
  group.index = 7;
  group.id = "four";
  group.prompt_tokens = {10, 11};
  group.tails = {{12}};
  for (Token k = 1; k <= 9; ++k) group.tails.push_back({13, 20 + k, 14});
  for (const std::vector<Token>& tokens : {std::vector<Token>{1, 9}, {2, 3, 9}, {9}, {4, 9}}) {
    Response response{.tokens = tokens, .masks = std::vector<std::uint8_t>(tokens.size(), 0)};
    response.masks[0] = 1;
    group.responses.push_back(response);
  }
  return group;
}

// The numbers of the first `count` responses.
std::vector<int> NumbersOf(const Group& group, const LabelSettings& settings, std::int64_t epoch, int count) {
  std::vector<int> numbers;
  for (const NumberedResponse& used : AssignPossibilities(group, settings, epoch, count)) {
    EXPECT_EQ(used.response, static_cast<int>(numbers.size()));
    numbers.push_back(used.possibility);
  }
  return numbers;
}

// Pairs of (response, number).
std::vector<std::pair<int, int>> PairsOf(const Group& group, const LabelSettings& settings, int count,
                                         std::int64_t epoch = 0) {
  std::vector<std::pair<int, int>> pairs;
  for (const NumberedResponse& used : AssignPossibilities(group, settings, epoch, count)) {
    pairs.emplace_back(used.response, used.possibility);
  }
  return pairs;
}

// Affinity 1 of each response to its kind, of `kinds`, and 0 to all others.
Group WithKinds(Group group, const std::vector<int>& kinds, int possibilities) {
  for (std::size_t r = 0; r < kinds.size(); ++r) {
    group.responses[r].affinity.assign(static_cast<std::size_t>(possibilities), 0.0F);
    group.responses[r].affinity[static_cast<std::size_t>(kinds[r] - 1)] = 1.0F;
  }
  return group;
}

std::string ErrorOf(std::string_view method, const Group& group, const LabelSettings& settings) {
  try {
    Label(MethodNamed(method), group, settings, 0);
  } catch (const DataError& error) {
    return error.what();
  }
  return "";
}

bool Contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST(LabellingTest, OneToOneTrainsTheFirstResponseOnly) {
  const LabelledGroup labelled = Label(MethodNamed("otoft"), FourResponses(), {}, 0);
  EXPECT_EQ(labelled.group, 7);
  ASSERT_EQ(labelled.sequences.size(), 1U);
  const LabelledSequence& sequence = labelled.sequences[0];
  EXPECT_EQ(*sequence.prefix, (std::vector<Token>{10, 11, 12}));
  EXPECT_EQ(sequence.response, (std::vector<Token>{1, 9}));
  EXPECT_EQ(sequence.likelihood, (std::vector<double>{0.5, 0.5}));
  EXPECT_EQ(sequence.unlikelihood, (std::vector<double>{0, 0}));
  EXPECT_EQ(sequence.possibility, 0);
  EXPECT_EQ(labelled.positive_tokens, 2);
  EXPECT_EQ(labelled.sequence_tokens, 5);
}

TEST(LabellingTest, OneToManyIsTheTokenMeanOverTheFirstN) {
  const LabelledGroup labelled = Label(MethodNamed("otmft"), FourResponses(), {.responses = 3}, 0);
  ASSERT_EQ(labelled.sequences.size(), 3U);
  EXPECT_EQ(labelled.positive_tokens, 6);
  for (const LabelledSequence& sequence : labelled.sequences) {
    for (const double weight : sequence.likelihood) EXPECT_EQ(weight, 1.0 / 6);
  }
}

TEST(LabellingTest, SequenceSumIsTheMeanOverSequences) {
  const LabelledGroup labelled = Label(MethodNamed("otmft"), FourResponses(),
                                       {.responses = 0, .normalization = Normalization::kSequenceSum}, 0);
  ASSERT_EQ(labelled.sequences.size(), 4U);
  for (const LabelledSequence& sequence : labelled.sequences) {
    for (const double weight : sequence.likelihood) EXPECT_EQ(weight, 0.25);
  }
}

TEST(LabellingTest, ResponseWeightsShareTheTokenMean) {
  Group group = FourResponses();
  group.responses[0].weight = 3.0;  // 2 tokens
  group.responses[1].weight = 0.0;  // 3 tokens
  const LabelledGroup labelled = Label(MethodNamed("otmft"), group, {.responses = 3}, 0);
  // Weighted tokens: 3 * 2 + 0 * 3 + 1 * 1 = 7.
  EXPECT_EQ(labelled.sequences[0].likelihood, (std::vector<double>{3.0 / 7, 3.0 / 7}));
  EXPECT_EQ(labelled.sequences[1].likelihood, (std::vector<double>{0, 0, 0}));
  EXPECT_EQ(labelled.sequences[2].likelihood, (std::vector<double>{1.0 / 7}));
}

TEST(LabellingTest, PretrainUsesEveryResponseWhateverN) {
  EXPECT_EQ(Label(MethodNamed("pretrain"), FourResponses(), {.responses = 2}, 0).sequences.size(), 4U);
}

TEST(LabellingTest, PossibilityExplorationPairsEveryNumberWithEveryResponse) {
  const LabelledGroup labelled =
      Label(MethodNamed("poexft"), FourResponses(), {.assignment = Assignment::kSequential}, 0);
  ASSERT_EQ(labelled.sequences.size(), 16U);
  std::set<std::pair<int, int>> pairs;
  for (std::size_t s = 0; s < 16; ++s) {
    const LabelledSequence& sequence = labelled.sequences[s];
    pairs.insert({sequence.possibility, sequence.response_index});
    EXPECT_EQ(sequence.positive, s < 4);
    EXPECT_EQ(sequence.possibility == sequence.response_index + 1, sequence.positive);
    EXPECT_EQ(*sequence.prefix, (std::vector<Token>{10, 11, 13, 20 + sequence.possibility, 14}));
    for (std::size_t t = 0; t < sequence.response.size(); ++t) {
      EXPECT_EQ(sequence.likelihood[t], sequence.positive ? 1.0 / 8 : 0.0);
      // One penalised token in each of 12 negatives.
      EXPECT_EQ(sequence.unlikelihood[t], !sequence.positive && t == 0 ? 0.5 / 12 : 0.0);
    }
  }
  EXPECT_EQ(pairs.size(), 16U);
  EXPECT_EQ(labelled.positive_tokens, 8);
  EXPECT_EQ(labelled.penalised_tokens, 12);
}

TEST(LabellingTest, SequenceSumDividesThePenaltyByThePositives) {
  const LabelledGroup labelled =
      Label(MethodNamed("poexft"), FourResponses(), {.normalization = Normalization::kSequenceSum}, 0);
  EXPECT_EQ(labelled.sequences[0].likelihood[0], 0.25);
  EXPECT_EQ(labelled.sequences[4].unlikelihood[0], 0.5 / 4);
}

TEST(LabellingTest, NothingPenalisedAddsNothing) {
  Group group = FourResponses();
  for (Response& response : group.responses) std::ranges::fill(response.masks, 0);
  const LabelledGroup labelled = Label(MethodNamed("poexft"), group, {}, 0);
  EXPECT_EQ(labelled.penalised_tokens, 0);
  ASSERT_EQ(labelled.sequences.size(), 16U);
  for (const LabelledSequence& sequence : labelled.sequences) {
    for (const double weight : sequence.unlikelihood) EXPECT_EQ(weight, 0.0);
  }
}

// docs/methods.md 2.5: "I'm a doctor, and I love 3 big dogs." under the three masks.
TEST(LabellingTest, MaskModesPenaliseTheirOwnTokens) {
  const std::vector<std::vector<int>> masks = {
      {1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 1, 1, 1, 0, 0},   // content_first
      {1, 0, 0, 1, 1, 0, 1, 1, 1, 1, 0, 1, 1, 0, 0},   // all_first
      {1, 0, 0, 0, 1, 0, 0, 1, 1, 0, 1, 1, 1, 0, 0}};  // repo_compat
  Group group;
  group.id = "doctor";
  group.prompt_tokens = {1};
  group.tails = {{}, {2}, {3}};
  Response doctor;
  for (std::size_t t = 0; t < masks[0].size(); ++t) {
    doctor.tokens.push_back(static_cast<Token>(100 + t));
    doctor.masks.push_back(static_cast<std::uint8_t>(masks[0][t] | masks[1][t] << 1 | masks[2][t] << 2));
  }
  group.responses = {Response{.tokens = {50, 51}, .masks = {0, 0}}, doctor};
  for (const int mode : {0, 1, 2}) {
    const LabelledGroup labelled = Label(
        MethodNamed("poexft"), group,
        {.responses = 2, .possibilities = 2, .unlikelihood_alpha = 1.0, .mask = static_cast<MaskMode>(mode)},
        0);
    const std::vector<int>& mask = masks[static_cast<std::size_t>(mode)];
    const int count = std::vector<int>{6, 9, 7}[static_cast<std::size_t>(mode)];
    EXPECT_EQ(labelled.penalised_tokens, count);
    const LabelledSequence& negative = labelled.sequences[2];
    ASSERT_EQ(negative.response_index, 1);
    for (std::size_t t = 0; t < mask.size(); ++t)
      EXPECT_EQ(negative.unlikelihood[t], mask[t] / (1.0 * count));
  }
}

TEST(LabellingTest, NegativesCanBeASubset) {
  const LabelSettings settings{.max_negatives = 5};
  std::set<std::set<std::pair<int, int>>> subsets;
  for (std::int64_t epoch = 0; epoch < 8; ++epoch) {
    const LabelledGroup labelled = Label(MethodNamed("poexft"), FourResponses(), settings, epoch);
    ASSERT_EQ(labelled.sequences.size(), 9U);
    EXPECT_EQ(labelled.penalised_tokens, 5);
    const std::vector<int> numbers = NumbersOf(FourResponses(), settings, epoch, 4);
    std::set<std::pair<int, int>> pairs;
    for (std::size_t s = 4; s < 9; ++s) {
      const LabelledSequence& negative = labelled.sequences[s];
      EXPECT_NE(negative.possibility, numbers[static_cast<std::size_t>(negative.response_index)]);
      const auto number = std::ranges::find(numbers, negative.possibility) - numbers.begin();
      pairs.insert({static_cast<int>(number), negative.response_index});
    }
    EXPECT_EQ(pairs.size(), 5U);
    subsets.insert(pairs);
  }
  EXPECT_GT(subsets.size(), 4U);  // each epoch draws anew: of C(12, 5) = 792 subsets few coincide
}

TEST(LabellingTest, NumbersAreDrawnByEpochOrOnce) {
  const Group group = FourResponses();
  LabelSettings settings{};
  std::set<std::vector<int>> sampled;
  std::set<std::vector<int>> fixed;
  for (std::int64_t epoch = 0; epoch < 10; ++epoch) {
    settings.assignment = Assignment::kSampled;
    const std::vector<int> numbers = NumbersOf(group, settings, epoch, 4);
    EXPECT_EQ(numbers, NumbersOf(group, settings, epoch, 4));
    EXPECT_EQ(std::set<int>(numbers.begin(), numbers.end()).size(), 4U);
    for (const int number : numbers) EXPECT_TRUE(number >= 1 && number <= 9);
    sampled.insert(numbers);
    settings.assignment = Assignment::kFixed;
    fixed.insert(NumbersOf(group, settings, epoch, 4));
  }
  EXPECT_GT(sampled.size(), 5U);
  EXPECT_EQ(fixed.size(), 1U);
  Group other = group;
  other.id = "other";
  EXPECT_NE(NumbersOf(other, settings, 0, 4), NumbersOf(group, settings, 0, 4));
  settings.seed = 43;
  EXPECT_NE(std::set<std::vector<int>>{NumbersOf(group, settings, 0, 4)}, fixed);
}

TEST(LabellingTest, AlignedNumbersAreThoseOfTheLargestTotalAffinity) {
  Group group = FourResponses();
  LabelSettings settings{.possibilities = 3, .assignment = Assignment::kAligned};
  // Response 0 likes number 1 best, but response 1 has nothing else: 0.8 + 0.9 beats 0.9 + 0.
  group.responses[0].affinity = {0.9F, 0.8F, -1.0F};
  group.responses[1].affinity = {0.9F, 0.0F, -0.5F};
  EXPECT_EQ(NumbersOf(group, settings, 0, 2), (std::vector<int>{2, 1}));
  // The third has no number left that suits it, and takes the one where that hurts least.
  group.responses[2].affinity = {0.0F, 0.0F, -0.25F};
  EXPECT_EQ(NumbersOf(group, settings, 0, 3), (std::vector<int>{2, 1, 3}));
  for (const std::uint64_t seed : {1U, 2U, 3U}) {
    settings.seed = seed;
    for (std::int64_t epoch = 0; epoch < 3; ++epoch) {
      EXPECT_EQ(NumbersOf(group, settings, epoch, 3), (std::vector<int>{2, 1, 3}));
    }
  }
}

// Two responses of kind 1: one of them must take a number of another kind, and over many groups no number
// is taken more often than the others.
TEST(LabellingTest, AlignedNumbersThatSuitEquallyAreDrawn) {
  LabelSettings settings{.assignment = Assignment::kAligned};
  std::vector<int> taken(10, 0);
  constexpr int kGroups = 700;
  for (int g = 0; g < kGroups; ++g) {
    Group group = WithKinds(FourResponses(), {1, 1, 2, 3}, 9);
    group.id = "g" + std::to_string(g);
    const std::vector<int> numbers = NumbersOf(group, settings, 0, 4);
    EXPECT_EQ(numbers, NumbersOf(group, settings, 7, 4));  // the same in every epoch
    EXPECT_EQ(numbers[2], 2);
    EXPECT_EQ(numbers[3], 3);
    ASSERT_TRUE(numbers[0] == 1 || numbers[1] == 1);
    ++taken[static_cast<std::size_t>(numbers[0] == 1 ? numbers[1] : numbers[0])];
  }
  // Six numbers are left: 700 / 6 = 117 each, standard deviation sqrt(700 * 5 / 36) = 9.9; five of them.
  for (int number = 4; number <= 9; ++number) {
    EXPECT_NEAR(taken[static_cast<std::size_t>(number)], kGroups / 6.0, 50.0) << number;
  }
}

TEST(LabellingTest, AlignedSelectionTakesTheResponsesThatCoverMostKinds) {
  const Group group = WithKinds(FourResponses(), {1, 1, 4, 2}, 9);
  LabelSettings settings{
      .responses = 3, .assignment = Assignment::kAligned, .selection = Selection::kAligned};
  const auto pairs = PairsOf(group, settings, 3);
  ASSERT_EQ(pairs.size(), 3U);
  EXPECT_EQ(pairs[0].second, 1);
  EXPECT_EQ(pairs[1], (std::pair{2, 4}));
  EXPECT_EQ(pairs[2], (std::pair{3, 2}));

  const LabelledGroup labelled = Label(MethodNamed("poexft"), group, settings, 0);
  ASSERT_EQ(labelled.sequences.size(), 9U);
  std::set<std::pair<int, int>> seen;
  for (const LabelledSequence& sequence : labelled.sequences) {
    seen.insert({sequence.response_index, sequence.possibility});
    EXPECT_EQ(sequence.response, group.responses[static_cast<std::size_t>(sequence.response_index)].tokens);
    EXPECT_EQ(sequence.positive,
              std::ranges::count(pairs, std::pair{sequence.response_index, sequence.possibility}) == 1);
  }
  EXPECT_EQ(seen.size(), 9U);  // every used response under every used number, once

  settings.selection = Selection::kFirst;
  const auto first = PairsOf(group, settings, 3);
  EXPECT_EQ(first[0].first + first[1].first + first[2].first, 0 + 1 + 2);
}

TEST(LabellingTest, AlignedNumbersNeedAffinitiesToAllNumbers) {
  LabelSettings settings{.assignment = Assignment::kAligned};
  const std::string none = ErrorOf("peft", FourResponses(), settings);
  EXPECT_TRUE(
      Contains(none, "response 0 has affinities to 0 possibility numbers, group.possibilities is 9") &&
      Contains(none, "plural prepare --align"))
      << none;
  const Group six = WithKinds(FourResponses(), {1, 2, 3, 4}, 6);
  EXPECT_TRUE(Contains(ErrorOf("peft", six, settings), "affinities to 6 possibility numbers"));
  settings.possibilities = 6;
  EXPECT_EQ(ErrorOf("peft", six, settings), "");
  // Responses that selection may take need them too.
  Group last = six;
  last.responses[3].affinity.clear();
  settings.responses = 3;
  EXPECT_EQ(ErrorOf("peft", last, settings), "");
  settings.selection = Selection::kAligned;
  EXPECT_TRUE(Contains(ErrorOf("peft", last, settings), "response 3 has affinities to 0"));
}

TEST(LabellingTest, LatentsStandBetweenPromptAndResponse) {
  const Group group = FourResponses();
  LabelSettings settings{.responses = 2};
  const LabelledGroup mixed = Label(MethodNamed("cvf"), group, settings, 3);
  // One latent a response, and its own; 5 tokens share the mean.
  ASSERT_EQ(mixed.sequences.size(), 2U);
  EXPECT_EQ(mixed.positive_tokens, 5);
  EXPECT_EQ(*mixed.sequences[0].prefix, (std::vector<Token>{10, 11, 12, LatentToken(0)}));
  EXPECT_EQ(*mixed.sequences[1].prefix, (std::vector<Token>{10, 11, 12, LatentToken(1)}));
  EXPECT_EQ(mixed.sequences[1].response, (std::vector<Token>{2, 3, 9}));
  EXPECT_EQ(mixed.sequences[1].likelihood, std::vector<double>(3, 0.2));
  EXPECT_EQ(mixed.sequences[1].latent, 0);
  // The query comes after the whole response, terminator included; nothing of it is trained as a token.
  ASSERT_EQ(mixed.recognition.size(), 2U);
  EXPECT_EQ(*mixed.recognition[1].prefix, (std::vector<Token>{10, 11, 12, 2, 3, 9, kQueryToken}));
  EXPECT_EQ(mixed.recognition[1].response_index, 1);
  EXPECT_EQ(mixed.recognition[1].likelihood, std::vector<double>{0.0});
  EXPECT_EQ(mixed.sequence_tokens, (4 + 2) + (4 + 3) + (6 + 1) + (7 + 1));

  settings.latent_branches = 3;
  const LabelledGroup exact = Label(MethodNamed("cvf"), group, settings, 3);
  ASSERT_EQ(exact.sequences.size(), 6U);
  EXPECT_EQ(exact.recognition.size(), 2U);
  for (int s = 0; s < 6; ++s) {
    const LabelledSequence& sequence = exact.sequences[static_cast<std::size_t>(s)];
    EXPECT_EQ(sequence.response_index, s / 3);
    EXPECT_EQ(sequence.latent, s % 3 + 1);
    EXPECT_EQ(sequence.prefix->back(), LatentToken(s % 3));
    EXPECT_DOUBLE_EQ(sequence.likelihood.front(), 0.2);
  }
  EXPECT_EQ(exact.positive_tokens, 5);
}

// docs/methods.md 3.5: weights 0.5, 0.25, 0.25 in nats.
TEST(LabellingTest, DistributionMatchingWeighsEveryTokenByItsTarget) {
  Group group;
  group.id = "numbers";
  group.prompt_tokens = {1};
  group.tails = {{2}};
  group.responses = {ResponseOf({3, 4, 9}, 2.0), ResponseOf({3, 5, 9}), ResponseOf({3, 4, 6, 9}),
                     ResponseOf({3, 7, 9}, 0.0)};
  // N and the normalization are other methods' business.
  const LabelledGroup labelled = Label(MethodNamed("distribution_matching"), group,
                                       {.responses = 2, .normalization = Normalization::kGroupTokenMean}, 0);
  ASSERT_EQ(labelled.sequences.size(), 4U);
  const double targets[] = {0.5, 0.25, 0.25, 0.0};
  for (std::size_t s = 0; s < 4; ++s) {
    EXPECT_EQ(labelled.sequences[s].target, targets[s]);
    for (const double weight : labelled.sequences[s].likelihood) EXPECT_EQ(weight, targets[s]);
  }
  EXPECT_NEAR(labelled.target_entropy_nats, 1.039721, 5e-7);  // the figure's last digit
}

TEST(LabellingTest, TargetsMustBePrefixFree) {
  Group group;
  group.id = "ten";
  group.prompt_tokens = {1};
  group.tails = {{}};
  // The digits of 1..10 without a terminator; a sequence between the two in input order changes nothing.
  for (Token digit = 1; digit <= 9; ++digit) group.responses.push_back(ResponseOf({digit}));
  group.responses.push_back(ResponseOf({1, 0}));
  const LabelSettings settings{};
  std::string error = ErrorOf("distribution_matching", group, settings);
  EXPECT_TRUE(Contains(error, "'ten'")) << error;
  EXPECT_TRUE(Contains(error, "target 0, 1 tokens [1], begins target 9, 2 tokens [1 0]")) << error;
  EXPECT_TRUE(Contains(error, "eos: true")) << error;

  // In lexicographic order other targets stand between [1] and [1 0 5].
  group.responses = {ResponseOf({1, 0, 5}), ResponseOf({1, 0, 2}), ResponseOf({1})};
  EXPECT_TRUE(
      Contains(ErrorOf("distribution_matching", group, settings), "target 2, 1 tokens [1], begins target 1"));

  group.responses = {ResponseOf({4, 5}), ResponseOf({3}), ResponseOf({4, 5})};
  error = ErrorOf("distribution_matching", group, settings);
  EXPECT_TRUE(Contains(error, "targets 0 and 2 (from 0) are equal")) << error;

  group.responses = {ResponseOf({4, 5}), ResponseOf({5, 4}), ResponseOf({4, 6})};
  EXPECT_EQ(ErrorOf("distribution_matching", group, settings), "");
}

TEST(LabellingTest, RefusesWhatAGroupCannotServe) {
  const Group good = FourResponses();
  const std::string few = ErrorOf("otmft", good, {.responses = 5});
  EXPECT_TRUE(Contains(few, "'four'") && Contains(few, "has 4 responses, 5 are needed") &&
              Contains(few, "group.responses"))
      << few;
  EXPECT_EQ(few.find('\n'), std::string::npos);
  EXPECT_TRUE(Contains(ErrorOf("peft", good, {.responses = 5}), "5 are needed"));

  const std::string numbers = ErrorOf("peft", good, {.possibilities = 10});
  EXPECT_TRUE(Contains(numbers, "prepared for 9 possibility numbers, group.possibilities is 10")) << numbers;
  const std::string narrow = ErrorOf("peft", good, {.responses = 0, .possibilities = 3});
  EXPECT_TRUE(Contains(narrow, "4 responses need as many different possibility numbers, there are 3"))
      << narrow;

  Group bad = good;
  bad.responses.clear();
  for (const std::string_view method : testing::kMethods) {
    EXPECT_TRUE(Contains(ErrorOf(method, bad, {.responses = 0}), "has 0 responses"));
  }
  bad = good;
  bad.prompt_tokens.clear();
  bad.tails[0].clear();
  EXPECT_TRUE(Contains(ErrorOf("pretrain", bad, {}), "its prompt has no tokens"));
  bad = good;
  bad.tails.clear();
  EXPECT_TRUE(Contains(ErrorOf("otoft", bad, {}), "no tail for possibility number 0"));
  EXPECT_TRUE(Contains(ErrorOf("peft", bad, {}), "prepared for 0 possibility numbers"));
  bad = good;
  bad.responses[1].tokens.clear();
  EXPECT_TRUE(Contains(ErrorOf("otmft", bad, {}), "response 1 has no tokens"));
  EXPECT_EQ(ErrorOf("otoft", bad, {}), "");
  bad = good;
  bad.responses[2].masks.pop_back();
  EXPECT_TRUE(Contains(ErrorOf("peft", bad, {}), "1 tokens and 0 unlikelihood masks"));

  for (const double weight : {-1.0, std::nan(""), HUGE_VAL}) {
    bad = good;
    bad.responses[0].weight = weight;
    EXPECT_TRUE(Contains(ErrorOf("distribution_matching", bad, {}), "finite and at least 0"));
  }
  bad = good;
  for (Response& response : bad.responses) response.weight = 0.0;
  for (const std::string_view method : testing::kMethods) {
    EXPECT_TRUE(Contains(ErrorOf(method, bad, {}), "weights of its responses sum to 0"));
  }
}

TEST(LabellingTest, WeightsOfAnyGroupAreNormalised) {
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    for (const std::string_view method : testing::kMethods) {
      const testing::RandomCase random = testing::MakeRandomCase(seed, method);
      const bool token_mean = random.settings.normalization == Normalization::kGroupTokenMean &&
                              method != "distribution_matching";
      double likelihood = 0.0;
      double unlikelihood = 0.0;
      std::int64_t penalised = 0;
      std::size_t positives = 0;
      for (const LabelledSequence& sequence : random.labelled.sequences) {
        positives += sequence.positive ? 1 : 0;
        likelihood += token_mean
                          ? std::accumulate(sequence.likelihood.begin(), sequence.likelihood.end(), 0.0)
                          : sequence.likelihood[0];
        for (const double weight : sequence.unlikelihood) {
          unlikelihood += weight;
          penalised += weight > 0.0 ? 1 : 0;
        }
      }
      // At most 30 summands, each rounded to 2^-53.
      EXPECT_NEAR(likelihood, 1.0, 30 * 0x1p-53);
      EXPECT_EQ(penalised, random.labelled.penalised_tokens);
      const double count = static_cast<double>(penalised);
      const double total =
          token_mean ? (penalised > 0 ? 0.5 : 0.0) : 0.5 * count / static_cast<double>(positives);
      EXPECT_NEAR(unlikelihood, total, 60 * 0x1p-53 * std::max(1.0, total));
    }
  }
}

}  // namespace
}  // namespace plural::data
