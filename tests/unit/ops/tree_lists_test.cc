// The lists of the attention kernels: no visible pair is left out, and none is seen that is not visible.

#include "trainer/ops/tree_lists.h"

#include <gtest/gtest.h>

#include <vector>

#include "tests/unit/support/naive_model.h"

namespace plural::trainer {
namespace {

bool RowSees(const data::RowPass& pass, std::int64_t window, std::int64_t q, std::int64_t k) {
  if (q >= pass.length || k >= pass.length) return false;
  const auto query = static_cast<std::size_t>(q), key = static_cast<std::size_t>(k);
  return k <= q && q < pass.end[key] && (window == 0 || pass.position[query] - pass.position[key] < window);
}

// Visible pairs of a block of queries and one of keys.
std::int64_t VisiblePairs(const data::RowPass& pass, std::int64_t window, std::int64_t first_query,
                          std::int64_t queries, std::int64_t first_key, std::int64_t keys) {
  std::int64_t pairs = 0;
  for (std::int64_t q = first_query; q < first_query + queries; ++q) {
    for (std::int64_t k = first_key; k < first_key + keys; ++k) pairs += RowSees(pass, window, q, k) ? 1 : 0;
  }
  return pairs;
}

// `of_queries`: blocks are queries and tiles keys, else the other way round.
void ExpectListed(const data::RowPass& pass, std::int64_t window, const TreeLists::List& list,
                  std::int64_t block, std::int64_t tile, bool of_queries) {
  const std::int64_t blocks = (pass.length + block - 1) / block, tiles = (pass.length + tile - 1) / tile;
  ASSERT_EQ(list.first.size(), static_cast<std::size_t>(blocks + 1));
  for (std::int64_t b = 0; b < blocks; ++b) {
    std::vector<int> kind(static_cast<std::size_t>(tiles), -1);
    std::int32_t last = -1;
    for (std::int32_t i = list.first[static_cast<std::size_t>(b)];
         i < list.first[static_cast<std::size_t>(b) + 1]; ++i) {
      const std::int32_t entry = list.tile[static_cast<std::size_t>(i)];
      ASSERT_GT(entry / 2, last);
      last = entry / 2;
      kind.at(static_cast<std::size_t>(entry / 2)) = entry % 2;
    }
    for (std::int64_t t = 0; t < tiles; ++t) {
      const std::int64_t pairs = of_queries ? VisiblePairs(pass, window, b * block, block, t * tile, tile)
                                            : VisiblePairs(pass, window, t * tile, tile, b * block, block);
      const int listed = kind[static_cast<std::size_t>(t)];
      ASSERT_TRUE(pairs == 0 || listed >= 0) << "block " << b << " does not list " << t;
      ASSERT_TRUE(listed != 0 || pairs == block * tile) << "block " << b << " has " << t << " whole";
    }
  }
}

TEST(TreeLists, HaveEveryVisiblePair) {
  for (const std::int64_t rows : {1, 16, 17, 64, 65, 200}) {
    for (const int branching : {2, 12, 100}) {
      for (const std::int64_t window : {0, 1, 20, 70}) {
        const data::RowPass pass =
            testing::RandomTreePass(rows, static_cast<std::uint64_t>(rows), 29, branching);
        for (const TreeListSizes& sizes : {TreeListSizes{16, 64, 32, 8}, TreeListSizes{4, 2, 3, 4}}) {
          const TreeLists lists = MakeTreeLists(pass, window, sizes);
          ExpectListed(pass, window, lists.keys_of_queries, sizes.queries, sizes.keys, true);
          ExpectListed(pass, window, lists.queries_of_keys, sizes.key_block, sizes.query_tile, false);
        }
      }
    }
  }
}

// A prompt of 64 rows and 4 answers of 32, of which blocks of 32 queries see the prompt whole and themselves.
TEST(TreeLists, LeaveOutOtherBranches) {
  data::RowPass pass;
  pass.length = 192;
  for (std::int32_t row = 0; row < 192; ++row) {
    pass.position.push_back(row < 64 ? row : 64 + row % 32);
    pass.end.push_back(row < 64 ? 192 : row / 32 * 32 + 32);
  }
  const TreeLists lists =
      MakeTreeLists(pass, 0, {.queries = 32, .keys = 32, .key_block = 64, .query_tile = 32});
  EXPECT_EQ(lists.keys_of_queries.first, (std::vector<std::int32_t>{0, 1, 3, 6, 9, 12, 15}));
  EXPECT_EQ(lists.keys_of_queries.tile,
            (std::vector<std::int32_t>{1, 0, 3, 0, 2, 5, 0, 2, 7, 0, 2, 9, 0, 2, 11}));
  EXPECT_EQ(lists.queries_of_keys.tile, (std::vector<std::int32_t>{1, 3, 4, 6, 8, 10, 5, 7, 9, 11}));
}

}  // namespace
}  // namespace plural::trainer
