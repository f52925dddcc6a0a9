#include "trainer/ops/tree_tiles.h"

#include <algorithm>
#include <array>

namespace plural::trainer {
namespace {

// The visibility of 16 keys to a block of rows.
struct Strip {
  std::int64_t keys = 0;
  std::int64_t first = kBlockRows, last = -1;  // rows that see any key
  std::array<std::array<std::uint8_t, kBlockRows>, kStripKeys> sees{};

  std::int64_t Row() const { return first / kStripKeys * kStripKeys; }
  std::int64_t RowEnd() const { return (last / kStripKeys + 1) * kStripKeys; }
  // `rows`: those that the block has.
  bool AllVisible(std::int64_t rows) const {
    for (std::int64_t k = 0; k < keys; ++k) {
      for (std::int64_t r = Row(); r < std::min(RowEnd(), rows); ++r) {
        if (sees[static_cast<std::size_t>(k)][static_cast<std::size_t>(r)] == 0) return false;
      }
    }
    return true;
  }
};

Strip Look(const data::RowPass& pass, std::int64_t window, const RowBlock& block, std::int64_t key,
           std::int64_t keys) {
  Strip strip;
  strip.keys = keys;
  for (std::int64_t k = 0; k < keys; ++k) {
    const auto at = static_cast<std::size_t>(key + k);
    const std::int64_t end = std::min<std::int64_t>(pass.end[at], block.begin + block.rows);
    for (std::int64_t q = std::max(key + k, block.begin); q < end; ++q) {
      if (window > 0 && pass.position[static_cast<std::size_t>(q)] - pass.position[at] >= window) continue;
      const std::int64_t row = q - block.begin;
      strip.sees[static_cast<std::size_t>(k)][static_cast<std::size_t>(row)] = 1;
      strip.first = std::min(strip.first, row);
      strip.last = std::max(strip.last, row);
    }
  }
  return strip;
}

}  // namespace

TreeTiles CutIntoTiles(const data::RowPass& pass, std::int64_t window) {
  TreeTiles tree;
  for (std::int64_t begin = 0; begin < pass.length; begin += kBlockRows) {
    RowBlock block;
    block.begin = begin;
    block.rows = std::min(kBlockRows, pass.length - begin);
    for (std::int64_t key = 0; key < begin + block.rows; key += kStripKeys) {
      const std::int64_t keys = std::min(kStripKeys, pass.length - key);
      const Strip strip = Look(pass, window, block, key, keys);
      if (strip.last < 0) continue;
      const bool masked = !strip.AllVisible(block.rows);
      Tile* tile = block.tiles.empty() ? nullptr : &block.tiles.back();
      const bool joins = tile != nullptr && keys == kStripKeys && key % kBlockRows != 0 &&
                         tile->key + tile->keys == key && tile->row == strip.Row() &&
                         tile->row + tile->rows == strip.RowEnd() && (tile->mask >= 0) == masked;
      if (!joins) {
        tile = &block.tiles.emplace_back();
        tile->key = key;
        tile->row = strip.Row();
        tile->rows = strip.RowEnd() - strip.Row();
        if (masked) tile->mask = static_cast<std::int64_t>(tree.mask.size()) / kBlockRows;
      }
      tile->keys += keys;
      if (!masked) continue;
      for (std::int64_t k = 0; k < keys; ++k) {
        const auto& row = strip.sees[static_cast<std::size_t>(k)];
        tree.mask.insert(tree.mask.end(), row.begin(), row.end());
      }
    }
    tree.blocks.push_back(std::move(block));
  }
  return tree;
}

}  // namespace plural::trainer
