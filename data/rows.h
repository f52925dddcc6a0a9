// Rows: what one forward and backward pass of the model consumes.
//
// Owns: packing trees of several groups into one pass, and the plain layout (one padded line per
// sequence), the reference for the tree. Does not own: devices or tensors. Thread rule: pure.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "data/tree.h"

namespace plural::data {

enum class Layout : std::uint8_t { kTree, kPlain };

enum class PassKind : std::uint8_t {
  kPrediction,   // of LabelledGroup::sequences
  kRecognition,  // of LabelledGroup::recognition (cvf)
};

// A pass of `batch` lines of `length` rows, flattened. In the tree layout batch is 1 and `end`
// decides visibility; in the plain layout attention is causal, lines are padded on the right, and
// `end` is empty.
struct RowPass {
  PassKind kind = PassKind::kPrediction;
  std::int64_t batch = 1;
  std::int64_t length = 0;
  std::vector<Token> token;            // [batch * length]
  std::vector<std::int32_t> position;  // [batch * length]
  std::vector<std::int32_t> end;       // [length] or empty
  // [batch * length] a hash of the group and of the tokens from the root to this row: the same row of the
  // same group has the same key in every layout, cut and packing. 0 in padding.
  std::vector<std::uint64_t> path_key;
  std::vector<Edge> edges;  // ordered by source; source is a flat row index
  // As in TokenTree, for the sequences below, in the same order.
  std::vector<std::int32_t> path;
  std::vector<std::int32_t> path_offset;
  struct SequenceRef {
    std::int32_t group = 0;     // index into the step's local groups
    std::int32_t sequence = 0;  // index into LabelledGroup::sequences or ::recognition
  };
  std::vector<SequenceRef> sequences;
  std::int64_t rows = 0;  // rows that carry a token (padding not counted)
};

struct PackSettings {
  Layout layout = Layout::kTree;
  CostModel cost = {};
  std::int64_t row_budget = 1024;  // trees share a pass up to this many rows
};

// The passes for the groups of one rank and step. Groups with recognition sequences (cvf) are
// packed as units: the recognition passes of some groups, about as many as row_budget holds, then
// the other passes of these groups. This bounds the memory that a unit keeps until its last pass.
// Every edge weight is multiplied by `scale` (1 / groups of the whole step), so that losses and
// gradients add up over passes and ranks.
std::vector<RowPass> PackGroups(std::span<const LabelledGroup> groups, const PackSettings& settings,
                                double scale);

}  // namespace plural::data
