// The tiles of a token tree: every visible pair in exactly one of them, and little else.

#include "trainer/ops/tree_tiles.h"

#include <gtest/gtest.h>

#include <vector>

#include "tests/unit/support/naive_model.h"

namespace plural::trainer {
namespace {

using testing::RandomTreePass;

bool Sees(const data::RowPass& pass, std::int64_t window, std::int64_t q, std::int64_t k) {
  return k <= q && q < pass.end[k] && (window == 0 || pass.position[q] - pass.position[k] < window);
}

void ExpectVisiblePairsOnce(const data::RowPass& pass, std::int64_t window) {
  const TreeTiles tree = CutIntoTiles(pass, window);
  std::vector<int> seen(static_cast<std::size_t>(pass.length * pass.length));
  for (const RowBlock& block : tree.blocks) {
    ASSERT_EQ(block.begin % kBlockRows, 0);
    for (const Tile& tile : block.tiles) {
      ASSERT_EQ(tile.key / kBlockRows, (tile.key + tile.keys - 1) / kBlockRows) << "keys of two blocks";
      ASSERT_TRUE(tile.keys % kStripKeys == 0 || tile.key + tile.keys == pass.length);
      ASSERT_EQ(tile.row % kStripKeys, 0);
      ASSERT_EQ(tile.rows % kStripKeys, 0);
      ASSERT_LE(tile.row + tile.rows, kBlockRows);
      for (std::int64_t k = 0; k < tile.keys; ++k) {
        for (std::int64_t r = tile.row; r < std::min(tile.row + tile.rows, block.rows); ++r) {
          const bool visible =
              tile.mask < 0 || tree.mask[static_cast<std::size_t>((tile.mask + k) * kBlockRows + r)] != 0;
          seen[static_cast<std::size_t>((block.begin + r) * pass.length + tile.key + k)] += visible ? 1 : 0;
        }
      }
    }
  }
  for (std::int64_t q = 0; q < pass.length; ++q) {
    for (std::int64_t k = 0; k < pass.length; ++k) {
      ASSERT_EQ(seen[static_cast<std::size_t>(q * pass.length + k)], Sees(pass, window, q, k) ? 1 : 0)
          << "row " << q << ", key " << k << " of " << pass.length << ", window " << window;
    }
  }
}

TEST(TreeTiles, HoldEveryVisiblePairOnce) {
  for (const std::int64_t rows : {1, 15, 16, 17, 63, 64, 65, 200, 333}) {
    for (const int branching : {2, 12, 100}) {
      for (const std::int64_t window : {0, 1, 20, 70}) {
        ExpectVisiblePairsOnce(RandomTreePass(rows, static_cast<std::uint64_t>(rows), 29, branching), window);
      }
    }
  }
}

// A prompt of 256 rows and 8 answers of 64: a block sees the prompt without a mask, and of itself 4 strips.
TEST(TreeTiles, LeaveOutWhatIsNotVisible) {
  data::RowPass pass;
  pass.length = 256 + 8 * 64;
  for (std::int32_t row = 0; row < pass.length; ++row) {
    pass.position.push_back(row < 256 ? row : 256 + row % 64);
    pass.end.push_back(row < 256 ? 768 : (row / 64 + 1) * 64);
  }
  const TreeTiles tree = CutIntoTiles(pass, 0);
  for (const RowBlock& block : tree.blocks) {
    if (block.begin < 256) continue;
    ASSERT_EQ(block.tiles.size(), 4U + 4U) << block.begin;
    for (std::size_t t = 0; t < 4; ++t) {
      EXPECT_EQ(block.tiles[t].keys, 64);
      EXPECT_EQ(block.tiles[t].rows, 64);
      EXPECT_EQ(block.tiles[t].mask, -1);
      EXPECT_EQ(block.tiles[4 + t].key, block.begin + static_cast<std::int64_t>(16 * t));
      EXPECT_EQ(block.tiles[4 + t].row, static_cast<std::int64_t>(16 * t)) << "rows before the keys see none";
    }
  }
}

}  // namespace
}  // namespace plural::trainer
