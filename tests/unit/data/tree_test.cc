#include "data/tree.h"

#include <gtest/gtest.h>

#include "data/error.h"
#include "data/random.h"

namespace plural::data {
namespace {

using Sequences = std::vector<std::vector<Token>>;
using Rows = std::vector<std::int32_t>;

TEST(FeedAll, FeedsLastTokens) {
  const FedTree fed = FeedAll(Sequences{{5, 6, 7}, {5, 6}, {5, 2}});
  EXPECT_EQ(fed.tree.token, (std::vector<Token>{5, 2, 6, 7}));
  EXPECT_EQ(fed.tree.position, (Rows{0, 1, 1, 2}));
  EXPECT_EQ(fed.tree.end, (Rows{4, 2, 4, 4}));
  EXPECT_EQ(fed.rows, (std::vector<Rows>{{0, 2, 3}, {0, 2}, {0, 1}}));
  EXPECT_TRUE(fed.tree.edges.empty());
}

TEST(FeedAll, EqualSequencesShareRows) {
  const FedTree fed = FeedAll(Sequences{{3, 1}, {4}, {3, 1}});
  EXPECT_EQ(fed.tree.token, (std::vector<Token>{3, 1, 4}));
  EXPECT_EQ(fed.rows, (std::vector<Rows>{{0, 1}, {2}, {0, 1}}));
}

// The rows that are given are those that the visibility rule finds, and they spell the sequence.
TEST(FeedAll, RowsAreThoseThatTheLastOneSees) {
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    CounterRandom random{MixKey(seed, Purpose::kSampling, 0, 0), 0};
    Sequences sequences(1 + random.Below(8));
    for (auto& sequence : sequences) {
      sequence.resize(1 + random.Below(6));
      for (Token& token : sequence) token = static_cast<Token>(random.Below(3));
    }
    const FedTree fed = FeedAll(sequences);
    for (std::size_t s = 0; s < sequences.size(); ++s) {
      const std::int32_t last = fed.rows[s].back();
      Rows visible;
      std::vector<Token> tokens;
      for (std::int32_t row = 0; row <= last; ++row) {
        if (fed.tree.end[static_cast<std::size_t>(row)] <= last) continue;
        visible.push_back(row);
        tokens.push_back(fed.tree.token[static_cast<std::size_t>(row)]);
      }
      EXPECT_EQ(fed.rows[s], visible);
      EXPECT_EQ(tokens, sequences[s]);
    }
  }
}

// The layout of what is predicted from: sequences that BuildTree leaves without their last token.
TEST(FeedAll, LaysRowsOutAsBuildTreeDoes) {
  const Sequences sequences = {{9, 4, 4}, {9, 4}, {2}, {9, 1, 7, 7}};
  std::vector<LabelledSequence> labelled(sequences.size());
  for (std::size_t s = 0; s < sequences.size(); ++s) {
    labelled[s].prefix = sequences[s];
    labelled[s].response = {0};
    labelled[s].likelihood = labelled[s].unlikelihood = {0.0};
  }
  const TokenTree predicting = BuildTree(labelled);
  const FedTree fed = FeedAll(sequences);
  EXPECT_EQ(fed.tree.token, predicting.token);
  EXPECT_EQ(fed.tree.position, predicting.position);
  EXPECT_EQ(fed.tree.end, predicting.end);
}

TEST(FeedAll, RefusesEmptySequences) { EXPECT_THROW(FeedAll(Sequences{{1}, {}}), DataError); }

}  // namespace
}  // namespace plural::data
