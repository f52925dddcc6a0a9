// The token tree: all sequences of a group merged by their token ids.
//
// Owns: building the tree, laying it out depth first, its edge list, trees that predict nothing,
// cutting a large group into several trees. Does not own: the meaning of weights (labelling.h),
// several trees in a pass (rows.h). Thread rule: pure functions.
//
// A row is a token that is fed to the model. Row q sees row k exactly when k <= q < end[k]; position
// is the depth on the path. A terminal token is never fed, it is only predicted. An edge is one
// prediction: the token that follows a row, with the weights that the method gives it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "data/labelled_group.h"

namespace plural::data {

struct Edge {
  std::int32_t source = 0;    // row whose hidden state predicts
  Token target = 0;           // the predicted token
  double likelihood = 0.0;    // weight of -log p
  double unlikelihood = 0.0;  // weight of -log(1-p)
};

struct TokenTree {
  std::vector<Token> token;            // [rows]
  std::vector<std::int32_t> position;  // [rows] depth on the root path
  std::vector<std::int32_t> end;       // [rows] one past the last row of the subtree
  std::vector<Edge> edges;             // ordered by (source, target); each (source, target) once
  // The edges of sequence s (the s-th given to BuildTree), in token order:
  // path[path_offset[s] .. path_offset[s+1]). Every predicted response token has its edge, weighted or not.
  std::vector<std::int32_t> path;
  std::vector<std::int32_t> path_offset;

  std::int64_t Rows() const { return static_cast<std::int64_t>(token.size()); }
};

// Merges the sequences, each with its PredictedTokens only. The rows are the distinct proper
// prefixes of all of them. The layout depends on the set of sequences only, not on their order:
// siblings are in order of token id. Sequences that differ in their first token make a forest.
// Edges of equal sequences add up, whatever their signs: where a negative of poexft equals its
// number's positive, the edge carries both weights.
// Time: one sort of the sequences and one pass over their tokens, no recursion.
// Errors: DataError when a prefix is empty.
TokenTree BuildTree(std::span<const LabelledSequence> sequences);
// The same for the sequences at the indices `which`; path_offset is in the order of `which`.
TokenTree BuildTree(std::span<const LabelledSequence> sequences, std::span<const int> which);

// A tree of sequences whose tokens are all fed, even the last ones: prompts without responses.
struct FedTree {
  TokenTree tree;                               // without edges and paths
  std::vector<std::vector<std::int32_t>> rows;  // of each sequence, from its first token to its last
};

// Merges the sequences as BuildTree does, with one row per distinct prefix, the sequences
// themselves included. Errors: DataError when a sequence is empty.
FedTree FeedAll(std::span<const std::vector<Token>> sequences);

// The cost of a tree, in multiply-adds of forward and backward, up to a constant factor.
struct CostModel {
  double per_row = 1.0;           // linear layers, per row
  double per_row_pair = 0.0;      // attention under a dense mask, per (row, row)
  double per_visible_pair = 0.0;  // attention that skips unseen rows, per (row, ancestor)
  std::int64_t max_rows = 0;      // no larger tree unless one sequence is; 0 = no limit

  // The cost by which a group is cut. Visible pairs are left out, since a cut saves none.
  double Cost(std::int64_t rows) const {
    const auto n = static_cast<double>(rows);
    return per_row * n + per_row_pair * n * n;
  }
};

// Splits `sequences` into parts whose trees together cost least, among all cuts of the
// lexicographic order. The result is exact, by dynamic programming over (first, last) of a part,
// whose rows are known in constant time. A part above max_rows has all its rows on one path. Time:
// a sort and at most n * n / 2 steps for n sequences, in practice n times the sequences of the
// largest part worth its cost.
// Returns the indices of each part; the parts, and the indices in them, are in lexicographic order
// of their sequences.
std::vector<std::vector<int>> CutGroup(std::span<const LabelledSequence> sequences, const CostModel& cost);

}  // namespace plural::data
