#include "data/rows.h"

#include <gtest/gtest.h>

#include <map>
#include <set>
#include <tuple>

#include "tests/unit/support/random_groups.h"

namespace plural::data {
namespace {

using testing::Prediction;
using testing::PredictionAt;
using testing::Visible;
using testing::Weights;

std::vector<LabelledGroup> RandomGroups(std::uint64_t seed) {
  std::vector<LabelledGroup> groups;
  for (std::uint64_t g = 0; g < 4; ++g) {
    const std::string_view method = testing::kMethods[(seed + g) % std::size(testing::kMethods)];
    groups.push_back(testing::MakeRandomCase(seed * 10 + g, method).labelled);
  }
  return groups;
}

// Checks shapes and paths of every pass, and that each sequence stands in exactly one; returns the
// weights of each (group, prediction).
std::map<std::pair<int, Prediction>, Weights> CheckPasses(const std::vector<LabelledGroup>& groups,
                                                          const std::vector<RowPass>& passes) {
  std::map<std::pair<int, Prediction>, Weights> sums;
  std::set<std::pair<int, int>> seen;
  for (const RowPass& pass : passes) {
    const auto padded = static_cast<std::size_t>(pass.batch * pass.length);
    EXPECT_EQ(pass.token.size(), padded);
    EXPECT_EQ(pass.position.size(), padded);
    EXPECT_EQ(pass.path_offset.size(), pass.sequences.size() + 1);
    std::vector<int> group_of_edge(pass.edges.size(), -1);
    for (std::size_t s = 0; s < pass.sequences.size(); ++s) {
      const auto [g, index] = pass.sequences[s];
      EXPECT_TRUE(seen.insert({g, index}).second);
      const LabelledSequence& sequence =
          groups[static_cast<std::size_t>(g)].sequences[static_cast<std::size_t>(index)];
      const auto begin = static_cast<std::size_t>(pass.path_offset[s]);
      EXPECT_EQ(static_cast<std::size_t>(pass.path_offset[s + 1]) - begin, sequence.PredictedTokens());
      for (std::size_t t = 0; t < sequence.PredictedTokens(); ++t) {
        const auto e = static_cast<std::size_t>(pass.path[begin + t]);
        const Edge& edge = pass.edges[e];
        const Prediction wanted = PredictionAt(sequence, t);
        EXPECT_EQ(Visible(pass, edge.source), wanted.context);
        EXPECT_EQ(edge.target, wanted.target);
        EXPECT_EQ(pass.position[static_cast<std::size_t>(edge.source)],
                  static_cast<std::int32_t>(wanted.context.size()) - 1);
        group_of_edge[e] = g;
      }
    }
    for (std::size_t e = 0; e < pass.edges.size(); ++e) {
      const Edge& edge = pass.edges[e];
      if (e > 0) {
        EXPECT_LE(pass.edges[e - 1].source, edge.source);
      }
      Weights& sum = sums[{group_of_edge[e], Prediction{Visible(pass, edge.source), edge.target}}];
      sum.likelihood += edge.likelihood;
      sum.unlikelihood += edge.unlikelihood;
    }
  }
  std::size_t sequences = 0;
  for (const LabelledGroup& group : groups) sequences += group.sequences.size();
  EXPECT_EQ(seen.size(), sequences);
  return sums;
}

TEST(RowsTest, BothLayoutsHoldTheSamePredictions) {
  constexpr double kScale = 0.25;  // a power of two, so that scaling is exact
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    const std::vector<LabelledGroup> groups = RandomGroups(seed);
    std::map<std::pair<int, Prediction>, Weights> wanted;
    for (std::size_t g = 0; g < groups.size(); ++g) {
      for (const LabelledSequence& sequence : groups[g].sequences) {
        for (std::size_t t = 0; t < sequence.PredictedTokens(); ++t) {
          Weights& sum = wanted[{static_cast<int>(g), PredictionAt(sequence, t)}];
          sum.likelihood += kScale * sequence.likelihood[t];
          sum.unlikelihood += kScale * sequence.unlikelihood[t];
        }
      }
    }
    CounterRandom random{seed};
    for (const Layout layout : {Layout::kTree, Layout::kPlain}) {
      PackSettings settings{.layout = layout, .row_budget = 1 + static_cast<std::int64_t>(random.Below(60))};
      settings.cost.max_rows = static_cast<std::int64_t>(random.Below(2) * random.Below(25));
      auto found = CheckPasses(groups, PackGroups(groups, settings, kScale));
      ASSERT_EQ(found.size(), wanted.size());
      for (auto f = found.begin(), w = wanted.begin(); f != found.end(); ++f, ++w) {
        ASSERT_EQ(f->first, w->first);
        // At most 20 weights of at most 1, in another order.
        ASSERT_NEAR(f->second.likelihood, w->second.likelihood, 20 * 0x1p-53);
        ASSERT_NEAR(f->second.unlikelihood, w->second.unlikelihood, 20 * 0x1p-53);
      }
      if (::testing::Test::HasFailure()) FAIL() << "seed " << seed;
    }
  }
}

// A group whose tree has `rows` rows: one sequence, one token longer.
LabelledGroup GroupOfRows(int rows) {
  LabelledGroup group;
  LabelledSequence sequence;
  sequence.prefix = std::vector<Token>(static_cast<std::size_t>(rows), 1);
  sequence.response = {2};
  sequence.likelihood = {1.0};
  sequence.unlikelihood = {0.0};
  group.sequences.push_back(sequence);
  return group;
}

std::vector<std::vector<int>> GroupsOfPasses(const std::vector<RowPass>& passes) {
  std::vector<std::vector<int>> groups;
  for (const RowPass& pass : passes) {
    std::vector<int>& of_pass = groups.emplace_back();
    for (const RowPass::SequenceRef& ref : pass.sequences) of_pass.push_back(ref.group);
  }
  return groups;
}

TEST(RowsTest, TreesGoIntoTheFirstPassWithRoom) {
  const std::vector<LabelledGroup> groups = {GroupOfRows(6), GroupOfRows(5), GroupOfRows(25),
                                             GroupOfRows(4), GroupOfRows(3), GroupOfRows(2)};
  const std::vector<RowPass> passes = PackGroups(groups, {.row_budget = 10}, 1.0);
  EXPECT_EQ(GroupsOfPasses(passes), (std::vector<std::vector<int>>{{0, 3}, {1, 4, 5}, {2}}));
  EXPECT_EQ(passes[0].rows, 10);
  EXPECT_EQ(passes[0].batch, 1);
  EXPECT_EQ(passes[0].length, 10);
  // The second tree begins anew: its first row sees itself only, at position 0.
  EXPECT_EQ(passes[0].position[6], 0);
  EXPECT_EQ(passes[0].end[5], 6);
  EXPECT_EQ(passes[0].end[6], 10);
  EXPECT_EQ(passes[0].edges[1].source, 9);
  EXPECT_EQ(passes[2].rows, 25);
}

TEST(RowsTest, RecognitionComesFirstInUnitsOfTheBudget) {
  std::vector<LabelledGroup> groups = {GroupOfRows(6), GroupOfRows(5), GroupOfRows(25), GroupOfRows(4),
                                       GroupOfRows(3)};
  for (LabelledGroup& group : groups) {
    group.recognition = group.sequences;
    std::vector<Token> asked = *group.recognition.front().prefix;
    asked.push_back(kQueryToken);
    group.recognition.front().prefix = std::move(asked);
  }
  for (const Layout layout : {Layout::kTree, Layout::kPlain}) {
    const std::vector<RowPass> passes = PackGroups(groups, {.layout = layout, .row_budget = 13}, 1.0);
    // Of each unit the groups that it recognises and those that it predicts: 7 + 6 rows, 26, 5 + 4.
    std::vector<std::pair<std::set<int>, std::set<int>>> units;
    for (std::size_t p = 0; p < passes.size(); ++p) {
      const bool recognises = passes[p].kind == PassKind::kRecognition;
      if (recognises && (p == 0 || passes[p - 1].kind != PassKind::kRecognition)) units.emplace_back();
      ASSERT_FALSE(units.empty());
      for (const auto& ref : passes[p].sequences) {
        (recognises ? units.back().first : units.back().second).insert(ref.group);
      }
    }
    const std::vector<std::pair<std::set<int>, std::set<int>>> wanted = {
        {{0, 1}, {0, 1}}, {{2}, {2}}, {{3, 4}, {3, 4}}};
    EXPECT_EQ(units, wanted);
  }
}

TEST(RowsTest, PlainBatchesHoldSimilarLengthsWithinTheBudget) {
  const std::vector<LabelledGroup> groups = {GroupOfRows(3), GroupOfRows(30), GroupOfRows(9),
                                             GroupOfRows(8), GroupOfRows(10), GroupOfRows(3)};
  // Four padded tokens a budget row: 24.
  const std::vector<RowPass> passes = PackGroups(groups, {.layout = Layout::kPlain, .row_budget = 6}, 1.0);
  EXPECT_EQ(GroupsOfPasses(passes), (std::vector<std::vector<int>>{{1}, {4, 2}, {3, 0, 5}}));
  const RowPass& last = passes[2];
  EXPECT_EQ(last.batch, 3);
  EXPECT_EQ(last.length, 8);
  EXPECT_EQ(last.rows, 8 + 3 + 3);
  EXPECT_TRUE(last.end.empty());
  EXPECT_EQ(last.token[10], 1);
  EXPECT_EQ(last.token[11], 0);  // padding at the right
  EXPECT_EQ(last.edges[1].source, 10);
}

TEST(RowsTest, ScaleMultipliesEveryWeight) {
  const std::vector<LabelledGroup> groups = {GroupOfRows(3)};
  for (const Layout layout : {Layout::kTree, Layout::kPlain}) {
    const std::vector<RowPass> passes = PackGroups(groups, {.layout = layout}, 0.125);
    EXPECT_EQ(passes[0].edges[0].likelihood, 0.125);
  }
  EXPECT_TRUE(PackGroups({}, {}, 1.0).empty());
}

}  // namespace
}  // namespace plural::data
