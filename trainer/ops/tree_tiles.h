// Tiles of a token tree: the visible part of its score matrix, cut for small dense multiplies.
//
// Owns: which keys meet which rows in which tile, and the masks of tiles that are only partly
// visible. Does not own: what is computed on them (tree_attention.h). Thread rule: pure.
//
// Rows and keys come in blocks of 64. In depth-first order a block of rows sees the ancestors of
// its rows in an earlier block, and in itself the paths of its rows: small parts of both. Keys are
// taken in strips of 16. Each strip has the range of rows that see any of it, and neighbouring
// strips of the same range are one tile; a last strip of fewer keys stays alone, so that tiles have
// few shapes. Rows outside a strip's range are not computed.
#pragma once

#include <cstdint>
#include <vector>

#include "data/rows.h"
#include "trainer/kernels/tile_products.h"

namespace plural::trainer {

constexpr std::int64_t kBlockRows = host::kTileSide;
constexpr std::int64_t kStripKeys = host::kStrip;  // ranges of rows are multiples of it, too

struct Tile {
  std::int64_t key = 0, keys = 0;  // first key and their number: a multiple of 16 but at the end
  std::int64_t row = 0, rows = 0;  // first row within the block and their number: multiples of 16
  std::int64_t mask = -1;          // first row of TreeTiles::mask; -1: all is visible
};

struct RowBlock {
  std::int64_t begin = 0, rows = 0;
  std::vector<Tile> tiles;  // by key
};

struct TreeTiles {
  std::vector<RowBlock> blocks;
  // [keys of masked tiles, kBlockRows]: 1 where the block's row sees the key. Rows after a block's
  // last are 0 here, and may be part of a tile without mask: their results are not used.
  std::vector<std::uint8_t> mask;
};

// `pass` is in the tree layout; window 0: none, else the number of path positions that a row sees.
TreeTiles CutIntoTiles(const data::RowPass& pass, std::int64_t window);

}  // namespace plural::trainer
