// Attention of a token tree on the CPU, without the invisible part of the score matrix.
//
// Owns: forward and backward over the tree's tiles. Does not own: which tiles there are
// (tree_tiles.h), loops on them (tile_loops.h, tile_products.h), other devices (attention.h).
// Thread rule: one thread calls, key heads are divided among the compute threads; the result does
// not depend on their number.
#pragma once

#include <memory>

#include "trainer/ops/attention.h"

namespace plural::trainer {

// `pass` is in the tree layout. Memory for backward is linear in rows: probabilities are
// recomputed. With bf16, probabilities and score gradients are rounded between two products, sums
// are not.
std::unique_ptr<Attention> MakeTreeAttention(const data::RowPass& pass, const AttentionTerms& terms);

}  // namespace plural::trainer
