// Attention of a token tree on the CPU, without the invisible part of the score matrix.
//
// Owns: cutting the tree into blocks of query rows, the few keys each block can see, forward and backward
// on them. Does not own: the layout of trees (data/tree.h), other devices (attention.h). Thread rule: one
// thread, one pass.
//
// In depth-first order a block of rows sees the path to its first row and itself, nothing else, and of the
// path the end that a window leaves: for a tree of many branches a small part of all rows. Their keys and
// values are gathered once a block, so that dense matrix multiplies do the work.
#pragma once

#include <memory>

#include "trainer/model/attention.h"

namespace plural::trainer {

// `pass` is in the tree layout. Memory for backward is linear in rows: probabilities are recomputed.
std::unique_ptr<Attention> MakeTreeAttention(const data::RowPass& pass, const ModelConfig& config,
                                             at::ScalarType dtype);

}  // namespace plural::trainer
