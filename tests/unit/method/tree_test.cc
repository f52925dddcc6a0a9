#include "data/tree.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <map>
#include <numeric>
#include <set>

#include "data/error.h"
#include "tests/unit/support/random_groups.h"

namespace plural::data {
namespace {

using testing::Prediction;
using testing::PredictionAt;
using testing::Tokens;
using testing::Weights;

// At most 20 sequences meet in one edge; weights are at most 1 and their sums a few units.
constexpr double kSumTolerance = 100 * 0x1p-53;

LabelledSequence SequenceOf(std::vector<Token> prefix, std::vector<Token> response, double weight = 0.5) {
  LabelledSequence sequence;
  sequence.prefix = std::move(prefix);
  sequence.likelihood.assign(response.size(), weight);
  sequence.unlikelihood.assign(response.size(), 0.25 * weight);
  sequence.response = std::move(response);
  return sequence;
}

// The tokens a row sees, by the rule `k <= q < end[k]` alone.
std::vector<Token> Visible(const TokenTree& tree, std::size_t q) {
  std::vector<Token> tokens;
  for (std::size_t k = 0; k <= q; ++k) {
    if (static_cast<std::int32_t>(q) < tree.end[k]) tokens.push_back(tree.token[k]);
  }
  return tokens;
}

std::map<Prediction, Weights> WeightsOf(const std::vector<LabelledSequence>& sequences) {
  std::map<Prediction, Weights> sums;
  for (const LabelledSequence& sequence : sequences) {
    for (std::size_t t = 0; t < sequence.PredictedTokens(); ++t) {
      Weights& sum = sums[PredictionAt(sequence, t)];
      sum.likelihood += sequence.likelihood[t];
      sum.unlikelihood += sequence.unlikelihood[t];
    }
  }
  return sums;
}

void AddEdges(const TokenTree& tree, std::map<Prediction, Weights>& sums) {
  for (const Edge& edge : tree.edges) {
    Weights& sum = sums[{Visible(tree, static_cast<std::size_t>(edge.source)), edge.target}];
    sum.likelihood += edge.likelihood;
    sum.unlikelihood += edge.unlikelihood;
  }
}

void ExpectEqual(const std::map<Prediction, Weights>& found, const std::map<Prediction, Weights>& wanted) {
  ASSERT_EQ(found.size(), wanted.size());
  for (auto f = found.begin(), w = wanted.begin(); f != found.end(); ++f, ++w) {
    ASSERT_EQ(f->first, w->first);
    ASSERT_NEAR(f->second.likelihood, w->second.likelihood, kSumTolerance);
    ASSERT_NEAR(f->second.unlikelihood, w->second.unlikelihood, kSumTolerance);
  }
}

// Everything the header promises, against sets and maps of token sequences.
void CheckTree(const std::vector<LabelledSequence>& sequences) {
  const TokenTree tree = BuildTree(sequences);

  std::set<std::vector<Token>> proper_prefixes;
  for (const LabelledSequence& sequence : sequences) {
    const std::vector<Token> tokens = Tokens(sequence);
    for (std::size_t n = 1; n < tokens.size(); ++n) {
      proper_prefixes.insert({tokens.begin(), tokens.begin() + static_cast<std::ptrdiff_t>(n)});
    }
  }
  // Depth first with siblings in order of token id is the lexicographic order of the rows' paths.
  ASSERT_EQ(tree.token.size(), proper_prefixes.size());
  ASSERT_EQ(tree.position.size(), tree.token.size());
  ASSERT_EQ(tree.end.size(), tree.token.size());
  std::size_t row = 0;
  for (const std::vector<Token>& prefix : proper_prefixes) {
    ASSERT_EQ(Visible(tree, row), prefix);
    ASSERT_EQ(tree.position[row], static_cast<std::int32_t>(prefix.size()) - 1);
    ++row;
  }

  for (std::size_t e = 1; e < tree.edges.size(); ++e) {
    const Edge& before = tree.edges[e - 1];
    const Edge& edge = tree.edges[e];
    ASSERT_LT(std::make_pair(before.source, before.target), std::make_pair(edge.source, edge.target));
  }
  std::map<Prediction, Weights> edges;
  AddEdges(tree, edges);
  ExpectEqual(edges, WeightsOf(sequences));

  ASSERT_EQ(tree.path_offset.size(), sequences.size() + 1);
  ASSERT_EQ(static_cast<std::size_t>(tree.path_offset.back()), tree.path.size());
  for (std::size_t s = 0; s < sequences.size(); ++s) {
    const auto begin = static_cast<std::size_t>(tree.path_offset[s]);
    ASSERT_EQ(static_cast<std::size_t>(tree.path_offset[s + 1]) - begin, sequences[s].PredictedTokens());
    for (std::size_t t = 0; t < sequences[s].PredictedTokens(); ++t) {
      const Edge& edge = tree.edges[static_cast<std::size_t>(tree.path[begin + t])];
      const Prediction prediction = PredictionAt(sequences[s], t);
      ASSERT_EQ(Visible(tree, static_cast<std::size_t>(edge.source)), prediction.context);
      ASSERT_EQ(edge.target, prediction.target);
    }
  }
}

TEST(TreeTest, ANegativeEndsWithItsLastPenalisedToken) {
  LabelledSequence positive = SequenceOf({1, 2}, {3, 4}, 0.5);
  LabelledSequence negative = SequenceOf({1, 2}, {5, 6, 7, 8, 9}, 0.0);
  negative.positive = false;
  negative.unlikelihood = {0.5, 0.0, 0.5, 0.0, 0.0};
  EXPECT_EQ(positive.PredictedTokens(), 2U);
  EXPECT_EQ(negative.PredictedTokens(), 3U);
  const TokenTree tree = BuildTree(std::vector{positive, negative});
  EXPECT_EQ(tree.token, (std::vector<Token>{1, 2, 3, 5, 6}));
  ASSERT_EQ(tree.path_offset, (std::vector<std::int32_t>{0, 2, 5}));
  EXPECT_EQ(tree.edges[static_cast<std::size_t>(tree.path.back())].target, 7);

  negative.unlikelihood.assign(5, 0.0);  // a path of its own all the same, of one edge and no row
  EXPECT_EQ(BuildTree(std::vector{positive, negative}).token, (std::vector<Token>{1, 2, 3}));
}

TEST(TreeTest, AllTriplesOfShortSequences) {
  std::vector<LabelledSequence> pool;
  for (const Token prompt : {0, 1}) {
    for (const Token a : {0, 1}) {
      pool.push_back(SequenceOf({prompt}, {a}, 0.125 * static_cast<double>(pool.size() + 1)));
      for (const Token b : {0, 1}) {
        // The same tokens with another boundary between prefix and response.
        pool.push_back(SequenceOf({prompt}, {a, b}, 0.125 * static_cast<double>(pool.size() + 1)));
        pool.push_back(SequenceOf({prompt, a}, {b}, 0.125 * static_cast<double>(pool.size() + 1)));
      }
    }
  }
  ASSERT_EQ(pool.size(), 20U);
  for (const auto& a : pool) {
    for (const auto& b : pool) {
      for (const auto& c : pool) ASSERT_NO_FATAL_FAILURE(CheckTree({a, b, c}));
    }
  }
}

TEST(TreeTest, RandomGroupsOfEveryMethod) {
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    for (const std::string_view method : testing::kMethods) {
      ASSERT_NO_FATAL_FAILURE(CheckTree(testing::MakeRandomCase(seed, method).labelled.sequences)) << seed;
    }
  }
}

TEST(TreeTest, OrderOfSequencesDoesNotMatterToTheLastBit) {
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    std::vector<LabelledSequence> sequences = testing::MakeRandomCase(seed, "peft").labelled.sequences;
    CounterRandom random{seed};
    // Three of each with weights of their own: sums of three depend on the order of summation.
    for (std::size_t s = 0, n = sequences.size(); s < 2 * n; ++s) sequences.push_back(sequences[s]);
    for (LabelledSequence& sequence : sequences) {
      for (double& weight : sequence.likelihood) weight = random.Uniform();
    }
    std::vector<std::size_t> shuffled(sequences.size());
    std::iota(shuffled.begin(), shuffled.end(), std::size_t{0});
    for (std::size_t i = shuffled.size(); i > 1; --i) std::swap(shuffled[i - 1], shuffled[random.Below(i)]);
    std::vector<LabelledSequence> permuted;
    for (const std::size_t s : shuffled) permuted.push_back(sequences[s]);

    const TokenTree tree = BuildTree(sequences);
    const TokenTree other = BuildTree(permuted);
    ASSERT_EQ(other.token, tree.token);
    ASSERT_EQ(other.position, tree.position);
    ASSERT_EQ(other.end, tree.end);
    ASSERT_EQ(other.edges.size(), tree.edges.size());
    for (std::size_t e = 0; e < tree.edges.size(); ++e) {
      ASSERT_EQ(other.edges[e].source, tree.edges[e].source);
      ASSERT_EQ(other.edges[e].target, tree.edges[e].target);
      ASSERT_EQ(other.edges[e].likelihood, tree.edges[e].likelihood);
      ASSERT_EQ(other.edges[e].unlikelihood, tree.edges[e].unlikelihood);
    }
    const auto path = [](const TokenTree& of, std::size_t s) {
      return std::vector<std::int32_t>(of.path.begin() + of.path_offset[s],
                                       of.path.begin() + of.path_offset[s + 1]);
    };
    for (std::size_t s = 0; s < shuffled.size(); ++s) ASSERT_EQ(path(other, s), path(tree, shuffled[s]));
  }
}

TEST(TreeTest, TerminalTokensAreNoRows) {
  // [5] -> 7 -> 8 | [5] -> 7: the shorter response ends inside the longer one.
  const TokenTree tree = BuildTree(std::vector{SequenceOf({5}, {7, 8}), SequenceOf({5}, {7})});
  EXPECT_EQ(tree.token, (std::vector<Token>{5, 7}));
  ASSERT_EQ(tree.edges.size(), 2U);
  EXPECT_EQ(tree.edges[0].likelihood, 1.0);  // 7 after 5 is predicted by both
  EXPECT_EQ(tree.edges[1].likelihood, 0.5);
  EXPECT_EQ(tree.edges[1].target, 8);
}

TEST(TreeTest, EqualSequencesMergeAndKeepBothWeights) {
  LabelledSequence positive = SequenceOf({1}, {2, 3}, 0.5);
  LabelledSequence negative = positive;
  std::ranges::fill(positive.unlikelihood, 0.0);
  std::ranges::fill(negative.likelihood, 0.0);
  negative.unlikelihood = {0.25, 0.0};
  const TokenTree tree = BuildTree(std::vector{positive, negative});
  EXPECT_EQ(tree.Rows(), 2);
  ASSERT_EQ(tree.edges.size(), 2U);
  EXPECT_EQ(tree.edges[0].likelihood, 0.5);
  EXPECT_EQ(tree.edges[0].unlikelihood, 0.25);
  EXPECT_EQ(tree.edges[1].unlikelihood, 0.0);
}

TEST(TreeTest, RefusesAnEmptyPrefix) {
  EXPECT_THROW(BuildTree(std::vector{SequenceOf({}, {1})}), DataError);
  EXPECT_EQ(BuildTree(std::vector<LabelledSequence>{}).Rows(), 0);
}

TEST(TreeTest, DepthIsNotBoundedByTheStack) {
  constexpr std::size_t kTokens = 1'000'000;
  const std::vector<Token> response(kTokens, 3);
  const TokenTree tree = BuildTree(std::vector{SequenceOf({1}, response), SequenceOf({1}, response)});
  ASSERT_EQ(tree.Rows(), static_cast<std::int64_t>(kTokens));
  EXPECT_EQ(tree.position.back(), static_cast<std::int32_t>(kTokens) - 1);
  EXPECT_EQ(tree.end.front(), static_cast<std::int32_t>(kTokens));
}

// docs/methods.md 5.6: p + N k + N^2 (r - 1) rows instead of N^2 (p + k + r).
TEST(TreeTest, CountsOfPossibilityExploration) {
  struct Shape {
    int prompt, tail, response, responses;
    std::int64_t tokens, shared;
  };
  for (const Shape& shape : {Shape{200, 3, 25, 4, 3648, 612}, Shape{500, 8, 40, 4, 8768, 1172},
                             Shape{500, 3, 40, 10, 54300, 4530}}) {
    Group group;
    Token next = 0;
    const auto fresh = [&next](int count) {
      std::vector<Token> tokens(static_cast<std::size_t>(count));
      for (Token& token : tokens) token = next++;
      return tokens;
    };
    group.prompt_tokens = fresh(shape.prompt);
    group.tails.push_back({});
    for (int k = 1; k <= 10; ++k) group.tails.push_back(fresh(shape.tail));
    for (int r = 0; r < shape.responses; ++r) {
      group.responses.push_back(testing::ResponseOf(fresh(shape.response)));
      group.responses.back().masks.assign(static_cast<std::size_t>(shape.response), 7);
    }
    const LabelledGroup labelled = trainer::Label(trainer::MethodNamed("poexft"), group,
                                                  {.responses = shape.responses, .possibilities = 10}, 0);
    EXPECT_EQ(labelled.sequence_tokens, shape.tokens);
    const TokenTree tree = BuildTree(labelled.sequences);
    const std::int64_t branches = std::int64_t{shape.responses} * shape.responses;
    EXPECT_EQ(tree.Rows(), shape.shared - branches);
    // Head rows: every response row but the last token's, and the tails' ends.
    std::set<std::int32_t> sources;
    for (const Edge& edge : tree.edges) sources.insert(edge.source);
    EXPECT_EQ(static_cast<std::int64_t>(sources.size()), branches * (shape.response - 1) + shape.responses);
    EXPECT_EQ(static_cast<std::int64_t>(tree.edges.size()), branches * shape.response);
  }
}

CostModel RandomCost(CounterRandom& random) {
  CostModel cost;
  cost.per_row = random.Uniform();
  cost.per_row_pair = random.Below(3) == 0 ? 0.0 : 0.3 * random.Uniform();
  cost.max_rows = random.Below(2) == 0 ? 0 : 1 + static_cast<std::int64_t>(random.Below(20));
  return cost;
}

std::int64_t LongestRows(const std::vector<LabelledSequence>& sequences, const std::vector<int>& part) {
  std::size_t longest = 0;
  for (const int s : part) longest = std::max(longest, Tokens(sequences[static_cast<std::size_t>(s)]).size());
  return static_cast<std::int64_t>(longest) - 1;
}

// Infinite where a part breaks the limit although it could be cut smaller.
double PartCost(const std::vector<LabelledSequence>& sequences, const std::vector<int>& part,
                const CostModel& cost) {
  const std::int64_t rows = BuildTree(sequences, part).Rows();
  const bool fits = cost.max_rows == 0 || rows <= cost.max_rows || rows == LongestRows(sequences, part);
  return fits ? cost.Cost(rows) : std::numeric_limits<double>::infinity();
}

TEST(CutGroupTest, IsTheCheapestOfAllContiguousCuts) {
  int cut = 0;
  for (std::uint64_t seed = 0; seed < 1000; ++seed) {
    const std::string_view method = testing::kMethods[seed % std::size(testing::kMethods)];
    const std::vector<LabelledSequence> sequences = testing::MakeRandomCase(seed, method).labelled.sequences;
    CounterRandom random{Mix64(seed)};
    const CostModel cost = RandomCost(random);
    const std::size_t n = std::min<std::size_t>(sequences.size(), 9);
    const std::vector<LabelledSequence> few(sequences.begin(),
                                            sequences.begin() + static_cast<std::ptrdiff_t>(n));
    std::vector<int> sorted(n);
    std::iota(sorted.begin(), sorted.end(), 0);
    std::ranges::stable_sort(sorted, {}, [&](int s) { return Tokens(few[static_cast<std::size_t>(s)]); });

    double cheapest = std::numeric_limits<double>::infinity();
    for (std::uint32_t borders = 0; borders < (1U << (n - 1)); ++borders) {
      double total = 0.0;
      std::vector<int> part;
      for (std::size_t i = 0; i < n; ++i) {
        part.push_back(sorted[i]);
        if (i + 1 < n && (borders >> i & 1U) == 0) continue;
        total += PartCost(few, part, cost);
        part.clear();
      }
      cheapest = std::min(cheapest, total);
    }

    double found = 0.0;
    std::vector<int> covered;
    std::map<Prediction, Weights> weights;
    const std::vector<std::vector<int>> parts = CutGroup(few, cost);
    for (const std::vector<int>& part : parts) {
      found += PartCost(few, part, cost);
      covered.insert(covered.end(), part.begin(), part.end());
      AddEdges(BuildTree(few, part), weights);
    }
    cut += parts.size() > 1 ? 1 : 0;
    ASSERT_NEAR(found, cheapest, 1e-12 * cheapest) << seed;  // sums of at most 9 parts in another order
    std::ranges::sort(covered);
    std::ranges::sort(sorted);
    ASSERT_EQ(covered, sorted);
    ASSERT_NO_FATAL_FAILURE(ExpectEqual(weights, WeightsOf(few)));
  }
  EXPECT_GT(cut, 200);  // the cases must be worth their name
}

TEST(CutGroupTest, CutsAManyTargetGroupButNotAFewTargetOne) {
  // A prompt of 30 tokens and targets of 30: the shape of the biographies.
  const auto targets = [](int count) {
    std::vector<LabelledSequence> sequences;
    for (Token target = 0; target < count; ++target) {
      std::vector<Token> response(30, 2);
      response[0] = target;
      sequences.push_back(SequenceOf(std::vector<Token>(30, 1), response));
    }
    return sequences;
  };
  const CostModel cost{.per_row = 1.0, .per_row_pair = 1.0 / 2000, .max_rows = 0};
  EXPECT_EQ(CutGroup(targets(8), cost).size(), 1U);
  const std::vector<std::vector<int>> parts = CutGroup(targets(200), cost);
  EXPECT_GT(parts.size(), 10U);
  EXPECT_LT(parts.size(), 50U);
  EXPECT_EQ(CutGroup(targets(200), {}).size(), 1U);
  EXPECT_TRUE(CutGroup({}, cost).empty());
}

TEST(CutGroupTest, OneSequenceMayExceedTheLimit) {
  const std::vector<LabelledSequence> sequences = {SequenceOf({1}, {2, 3, 4, 5}), SequenceOf({1}, {2, 3}),
                                                   SequenceOf({1}, {6, 7})};
  // [1 2 3] begins [1 2 3 4 5]: apart they would repeat rows and make no tree smaller.
  EXPECT_EQ(CutGroup(sequences, {.max_rows = 3}), (std::vector<std::vector<int>>{{1, 0}, {2}}));
}

}  // namespace
}  // namespace plural::data
