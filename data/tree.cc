#include "data/tree.h"

#include <algorithm>
#include <compare>
#include <limits>
#include <numeric>
#include <string>
#include <tuple>
#include <utility>

#include "data/error.h"

namespace plural::data {
namespace {

// Sequences in lexicographic order of their tokens, in which neighbours share the longest prefixes.
class SortedSequences {
 public:
  // The sequences at `which`. Every token of a sequence but its last makes a row.
  SortedSequences(std::span<const LabelledSequence> sequences, std::span<const int> which) {
    std::size_t total = 0;
    for (const int index : which) total += Length(sequences, index);
    Reserve(which.size(), total);
    for (const int index : which) {
      const LabelledSequence& sequence = sequences[static_cast<std::size_t>(index)];
      RequirePrefix(sequence.prefix);
      tokens_.insert(tokens_.end(), sequence.prefix.begin(), sequence.prefix.end());
      tokens_.insert(tokens_.end(), sequence.response.begin(),
                     sequence.response.begin() + static_cast<std::ptrdiff_t>(sequence.PredictedTokens()));
      offset_.push_back(tokens_.size());
    }
    // Equal tokens are ordered by their weights, so that sums of weights do not depend on input order.
    Sort([&](std::size_t a, std::size_t b) {
      return Weights(sequences[static_cast<std::size_t>(which[a])]) <
             Weights(sequences[static_cast<std::size_t>(which[b])]);
    });
  }

  // All sequences. Every token of a sequence makes a row.
  explicit SortedSequences(std::span<const std::vector<Token>> sequences) {
    std::size_t total = 0;
    for (const auto& sequence : sequences) total += sequence.size();
    Reserve(sequences.size(), total);
    for (const auto& sequence : sequences) {
      RequirePrefix(sequence);
      tokens_.insert(tokens_.end(), sequence.begin(), sequence.end());
      offset_.push_back(tokens_.size());
    }
    Sort([](std::size_t, std::size_t) { return false; });
  }

  std::size_t Size() const { return order_.size(); }
  // The tokens of the i-th sequence in order, and its index in the given list.
  std::span<const Token> operator[](std::size_t i) const { return Of(order_[i]); }
  std::size_t Given(std::size_t i) const { return order_[i]; }
  // The number of leading tokens that the i-th sequence shares with the one before it.
  std::size_t Shared(std::size_t i) const { return shared_[i]; }

  std::int64_t Rows(std::size_t i) const { return static_cast<std::int64_t>((*this)[i].size()) - 1; }
  // The number of rows that the i-th sequence adds to any tree that ends with the one before it.
  // That one's last token is no row yet, even where this sequence continues it.
  std::int64_t NewRows(std::size_t i) const {
    return Rows(i) - std::min(static_cast<std::int64_t>(shared_[i]), Rows(i - 1));
  }

 private:
  void Reserve(std::size_t sequences, std::size_t tokens) {
    if (tokens > static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max())) {
      throw DataError("the sequences of one group have " + std::to_string(tokens) +
                      " tokens, at most 2^31-1 are allowed; give the group fewer or shorter responses");
    }
    tokens_.reserve(tokens);
    offset_.reserve(sequences + 1);
    offset_.push_back(0);
  }
  static void RequirePrefix(std::span<const Token> prefix) {
    if (!prefix.empty()) return;
    throw DataError("a sequence has an empty prefix, so nothing predicts its first response token");
  }
  template <typename Less>
  void Sort(const Less& less_of_equals) {
    order_.resize(offset_.size() - 1);
    std::iota(order_.begin(), order_.end(), std::size_t{0});
    std::ranges::stable_sort(order_, [&](std::size_t a, std::size_t b) {
      const auto by_tokens =
          std::lexicographical_compare_three_way(Of(a).begin(), Of(a).end(), Of(b).begin(), Of(b).end());
      return by_tokens != 0 ? by_tokens < 0 : less_of_equals(a, b);
    });
    shared_.resize(order_.size(), 0);
    for (std::size_t i = 1; i < order_.size(); ++i) {
      const auto before = (*this)[i - 1];
      const auto current = (*this)[i];
      const auto differ = std::ranges::mismatch(before, current);
      shared_[i] = static_cast<std::size_t>(differ.in1 - before.begin());
    }
  }

  static std::size_t Length(std::span<const LabelledSequence> sequences, int index) {
    const LabelledSequence& sequence = sequences[static_cast<std::size_t>(index)];
    return sequence.prefix.size() + sequence.response.size();
  }
  static std::tuple<std::size_t, const std::vector<double>&, const std::vector<double>&> Weights(
      const LabelledSequence& sequence) {
    return {sequence.prefix.size(), sequence.likelihood, sequence.unlikelihood};
  }
  std::span<const Token> Of(std::size_t given) const {
    return std::span(tokens_).subspan(offset_[given], offset_[given + 1] - offset_[given]);
  }

  std::vector<Token> tokens_;
  std::vector<std::size_t> offset_;
  std::vector<std::size_t> order_;
  std::vector<std::size_t> shared_;
};

std::vector<int> AllOf(std::span<const LabelledSequence> sequences) {
  std::vector<int> which(sequences.size());
  std::iota(which.begin(), which.end(), 0);
  return which;
}

// Lays out a tree's rows, depth first, from its sequences in lexicographic order.
class RowLayout {
 public:
  explicit RowLayout(TokenTree& tree) : tree_(tree) {}

  // Moves on to a sequence whose first `shared` tokens are those of the one before it, and whose
  // first `fed` tokens have rows.
  void Next(std::span<const Token> tokens, std::size_t shared, std::size_t fed) {
    Close(std::min(shared, rows_.size()));
    for (std::size_t depth = rows_.size(); depth < fed; ++depth) {
      rows_.push_back(static_cast<std::int32_t>(tree_.token.size()));
      tree_.token.push_back(tokens[depth]);
      tree_.position.push_back(static_cast<std::int32_t>(depth));
      tree_.end.push_back(0);
    }
  }
  void Finish() { Close(0); }
  // The rows of the current sequence, by depth.
  const std::vector<std::int32_t>& Rows() const { return rows_; }

 private:
  void Close(std::size_t depth) {
    for (; rows_.size() > depth; rows_.pop_back()) {
      tree_.end[static_cast<std::size_t>(rows_.back())] = static_cast<std::int32_t>(tree_.token.size());
    }
  }

  TokenTree& tree_;
  std::vector<std::int32_t> rows_;
};

// Puts edges in order of (source, target) and rewrites the references to them.
void SortEdges(TokenTree& tree) {
  std::vector<std::int32_t> order(tree.edges.size());
  std::iota(order.begin(), order.end(), 0);
  const auto key = [&](std::int32_t e) {
    const Edge& edge = tree.edges[static_cast<std::size_t>(e)];
    return std::make_tuple(edge.source, edge.target);
  };
  std::ranges::sort(order, {}, key);
  std::vector<Edge> edges;
  edges.reserve(order.size());
  std::vector<std::int32_t> place(order.size());
  for (const std::int32_t e : order) {
    place[static_cast<std::size_t>(e)] = static_cast<std::int32_t>(edges.size());
    edges.push_back(tree.edges[static_cast<std::size_t>(e)]);
  }
  tree.edges = std::move(edges);
  for (std::int32_t& e : tree.path) e = place[static_cast<std::size_t>(e)];
}

}  // namespace

TokenTree BuildTree(std::span<const LabelledSequence> sequences, std::span<const int> which) {
  const SortedSequences sorted(sequences, which);
  TokenTree tree;
  tree.path_offset.reserve(which.size() + 1);
  tree.path_offset.push_back(0);
  for (const int index : which) {
    const std::size_t predicted = sequences[static_cast<std::size_t>(index)].PredictedTokens();
    tree.path_offset.push_back(tree.path_offset.back() + static_cast<std::int32_t>(predicted));
  }
  tree.path.resize(static_cast<std::size_t>(tree.path_offset.back()));

  constexpr std::int32_t kNoEdge = -1;
  RowLayout layout(tree);
  std::vector<std::int32_t> edge_at;  // edge that predicts the token at a depth, or kNoEdge
  for (std::size_t i = 0; i < sorted.Size(); ++i) {
    const std::span<const Token> tokens = sorted[i];
    layout.Next(tokens, sorted.Shared(i), tokens.size() - 1);
    edge_at.resize(std::min(sorted.Shared(i), edge_at.size()));
    edge_at.resize(tokens.size(), kNoEdge);

    const std::size_t given = sorted.Given(i);
    const LabelledSequence& sequence = sequences[static_cast<std::size_t>(which[given])];
    for (std::size_t t = 0; sequence.prefix.size() + t < tokens.size(); ++t) {
      const std::size_t depth = sequence.prefix.size() + t;
      if (edge_at[depth] == kNoEdge) {
        edge_at[depth] = static_cast<std::int32_t>(tree.edges.size());
        tree.edges.push_back({.source = layout.Rows()[depth - 1], .target = tokens[depth]});
      }
      Edge& edge = tree.edges[static_cast<std::size_t>(edge_at[depth])];
      edge.likelihood += sequence.likelihood[t];
      edge.unlikelihood += sequence.unlikelihood[t];
      tree.path[static_cast<std::size_t>(tree.path_offset[given]) + t] = edge_at[depth];
    }
  }
  layout.Finish();
  SortEdges(tree);
  return tree;
}

TokenTree BuildTree(std::span<const LabelledSequence> sequences) {
  return BuildTree(sequences, AllOf(sequences));
}

FedTree FeedAll(std::span<const std::vector<Token>> sequences) {
  const SortedSequences sorted(sequences);
  FedTree fed;
  fed.rows.resize(sequences.size());
  RowLayout layout(fed.tree);
  for (std::size_t i = 0; i < sorted.Size(); ++i) {
    layout.Next(sorted[i], sorted.Shared(i), sorted[i].size());
    fed.rows[sorted.Given(i)] = layout.Rows();
  }
  layout.Finish();
  return fed;
}

std::vector<std::vector<int>> CutGroup(std::span<const LabelledSequence> sequences, const CostModel& cost) {
  if (sequences.empty()) return {};
  // Without a quadratic term and a limit, sharing more never costs more.
  if (cost.per_row_pair == 0.0 && cost.max_rows == 0) return {AllOf(sequences)};

  const SortedSequences sorted(sequences, AllOf(sequences));
  const std::size_t n = sorted.Size();
  // added[j]: rows that sequences 1..j-1 add, each after the one before it.
  std::vector<std::int64_t> added(n + 1, 0);
  for (std::size_t j = 1; j < n; ++j) added[j + 1] = added[j] + sorted.NewRows(j);

  std::vector<double> best(n + 1, 0.0);      // cost of the first j sequences
  std::vector<std::size_t> begin(n + 1, 0);  // where their last part begins
  for (std::size_t j = 1; j <= n; ++j) {
    best[j] = std::numeric_limits<double>::infinity();
    std::int64_t longest = 0;
    for (std::size_t i = j; i-- > 0;) {
      const std::int64_t rows = sorted.Rows(i) + added[j] - added[i + 1];
      longest = std::max(longest, sorted.Rows(i));
      // A part exceeds the limit only when a cut makes no tree smaller: all rows are on one path.
      if (cost.max_rows > 0 && rows > cost.max_rows && rows > longest) break;
      const double part = cost.Cost(rows);
      if (part > best[j]) break;  // rows only grow as i falls: no earlier begin can win
      if (best[i] + part <= best[j]) {
        best[j] = best[i] + part;
        begin[j] = i;
      }
    }
  }
  std::vector<std::vector<int>> parts;
  for (std::size_t j = n; j > 0; j = begin[j]) {
    std::vector<int>& part = parts.emplace_back();
    for (std::size_t i = begin[j]; i < j; ++i) part.push_back(static_cast<int>(sorted.Given(i)));
  }
  std::ranges::reverse(parts);
  return parts;
}

}  // namespace plural::data
