// The blocks in which the attention kernels take rows and keys.
//
// Owns: their sizes, which the makers of tile lists need, too. Does not own: the lists
// (trainer/ops/tree_lists.h), the kernels (tree_attention.h). Thread rule: values.
//
// A warp has 16 rows. Heads that share a key head are taken together where that goes: a block then has fewer
// queries of more heads, reads keys once for them, and meets fewer keys that it does not see.
#pragma once

#include "trainer/kernels/cuda/module.h"

namespace plural::trainer {

struct TreeBlocks {
  int heads_per_block;
  int queries;    // of a block of the forward kernel and of that for dq
  int keys;       // of a tile there
  int key_block;  // keys of a block of the kernel for dk and dv
  int query_tile;
};

// Compiled head dimensions; others take the next larger. 0: there is none.
constexpr int TreeWidthOf(int dim) {
  return dim < 8 || dim % 8 != 0 || dim > 256 ? 0 : dim <= 64 ? 64 : dim <= 128 ? 128 : 256;
}
constexpr int TreeWarps(bool fp32) { return fp32 ? 2 : 4; }
// As many as registers hold beside a warp's output.
constexpr int TreeKeys(bool fp32, int width) { return (fp32 ? 32 : 64) / (width > 128 ? 2 : 1); }
constexpr int kTreeQueryTile = 32;

constexpr TreeBlocks TreeBlocksOf(KernelType type, int dim, int heads, int shared_heads) {
  const bool fp32 = type == KernelType::kFp32;
  const int warps = TreeWarps(fp32), sharing = heads / shared_heads;
  int heads_per_block = warps;
  while (sharing % heads_per_block != 0) heads_per_block /= 2;
  return {heads_per_block, 16 * warps / heads_per_block, TreeKeys(fp32, TreeWidthOf(dim)), 16 * warps,
          kTreeQueryTile};
}

}  // namespace plural::trainer
