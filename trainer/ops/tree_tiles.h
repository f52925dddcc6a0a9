// Tiles of a token tree: the visible part of its score matrix, cut for small dense multiplies.
//
// Owns: which keys meet which rows in which tile, and the masks of tiles that are not visible as a whole.
// Does not own: what is computed on them (tree_attention.h). Thread rule: pure.
//
// Rows come in blocks of 64, keys in the same blocks. In depth-first order a block of rows sees of an earlier
// block the ancestors of its rows, and of itself what a branch sees of its own: small parts both. Keys are
// looked at 16 at a time: each such strip has the range of rows that see any of it, and neighbouring
// strips of one range are one tile; a last strip of fewer keys stays alone, so that tiles have few shapes.
// What no row of a strip's range sees is not computed.
#pragma once

#include <cstdint>
#include <vector>

#include "data/rows.h"
#include "trainer/kernels/tile_products.h"

namespace plural::trainer {

constexpr std::int64_t kBlockRows = host::kTileSide;
constexpr std::int64_t kStripKeys = host::kStrip;  // also what ranges of rows are multiples of

struct Tile {
  std::int64_t key = 0, keys = 0;  // first key, and how many: a multiple of 16 but at the pass' end
  std::int64_t row = 0, rows = 0;  // first row, counted from the block's, and how many: multiples of 16
  std::int64_t mask = -1;          // first row of TreeTiles::mask; -1: all is visible
};

struct RowBlock {
  std::int64_t begin = 0, rows = 0;
  std::vector<Tile> tiles;  // by key
};

struct TreeTiles {
  std::vector<RowBlock> blocks;
  // [keys of masked tiles, kBlockRows]: whether the block's row sees the key. Rows behind a block's last are
  // not visible here, and may be part of a tile without mask: nothing is expected of them.
  std::vector<std::uint8_t> mask;
};

// `pass` is in the tree layout; window 0: none, else how far back in path position a row sees.
TreeTiles CutIntoTiles(const data::RowPass& pass, std::int64_t window);

}  // namespace plural::trainer
