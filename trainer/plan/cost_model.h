// The cost of a token tree on a model of a given shape.
//
// Owns: the numbers by which trees are cut and ranks balanced. Does not own: their use
// (data/tree.h, run/loader.h). Thread rule: pure. A function of the shape and the kind of device
// alone, never of the machine or the number of ranks: it decides how trees are cut, and so the
// order of sums.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>

#include "data/rows.h"
#include "data/tree.h"
#include "trainer/model/config.h"

namespace plural::trainer {

// In multiply-adds of forward and backward. With E hidden size, I intermediate size, L layers,
// H query and G key-value heads of dimension D:
//   a row            p L (2 E H D + 2 E G D + 3 E I)    p = 2 for an adapter (outputs, input gradients),
//                                                       p = 3 when all weights are trained
//   a pair of rows   7 L H D    scores and sums in forward (2); in backward scores again, and the gradients
//                               of values, probabilities, queries and keys (5)
// The head is left out: its work hardly depends on the cut. On the CPU (ops/tree_attention.h) and on
// a GPU with the kernel for trees (ops/tree_attention_cuda.h) a row is charged its ancestors, whose
// number no cut reduces. On a GPU without one (fp64, head dimensions that it does not take) attention
// takes a dense mask, and a tree of R rows is charged R^2 pairs, in layers with a window, too. Check:
// the 56 M Mistral shape (512 wide, 8 layers) gives pair / row = 6.2e-4; timings of a prototype with
// a dense mask, 210 biographies in trees of 8 to 210 targets, fit 7e-4, least at 16.
//
// max_rows: the rows whose saved activations, about (10 E + 4 I) L elements each, and mask if there
// is one, fit in `memory_bytes`; 0: in 8 GiB, on a GPU in 48, whatever the card has, and layers are
// computed twice where that is less. On the CPU at most 2,048: above that a prompt that is repeated in every
// tree costs little, and the head keeps no more logits (model/head.h).
data::CostModel CostOf(const ModelConfig& config, bool train_all_weights, std::int64_t bytes_per_element,
                       at::Device device, std::int64_t memory_bytes = 0);

// Rows up to which small trees share a pass, where a recipe says 0: 1,024, and 8,192 on a GPU with the
// kernel for trees, whose products and launches want many rows. `units`: of a method whose passes stay in
// memory until a unit of them is done (cvf): 1,024 there, too, and for plain rows.
std::int64_t RowBudgetOf(std::int64_t asked, data::Layout layout, bool units, const ModelConfig& config,
                         std::int64_t bytes_per_element, at::Device device);

}  // namespace plural::trainer
