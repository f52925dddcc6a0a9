// Which blocks of a token tree see each other, for the attention kernels on a GPU.
//
// Owns: the lists of blocks that any row sees, and which are seen whole. Does not own: the sizes of blocks
// (kernels/cuda/tree_blocks.h), tiles on the CPU (tree_tiles.h). Thread rule: pure.
//
// A list is made from ends and positions of whole blocks: it may have a block in which no pair is visible
// after all, never leaves out one that is, and calls a block whole only where every pair is.
#pragma once

#include <cstdint>
#include <vector>

#include "data/rows.h"

namespace plural::trainer {

struct TreeLists {
  // As in TileList (kernels/cuda/module.h).
  struct List {
    std::vector<std::int32_t> first, tile;
  };
  List keys_of_queries;  // key tiles of each block of queries
  List queries_of_keys;  // query tiles of each block of keys
};

struct TreeListSizes {
  std::int64_t queries = 0, keys = 0;          // of a block and a tile of keys_of_queries
  std::int64_t key_block = 0, query_tile = 0;  // of queries_of_keys
};

// `pass` is in the tree layout; window 0: none, else the number of path positions that a row sees.
TreeLists MakeTreeLists(const data::RowPass& pass, std::int64_t window, const TreeListSizes& sizes);

}  // namespace plural::trainer
