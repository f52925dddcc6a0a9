#include "data/tree.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <string>
#include <tuple>
#include <utility>

#include "data/error.h"

namespace plural::data {
namespace {

// A sequence's tokens, in two pieces of which sequences may share the first.
class Tokens {
 public:
  Tokens(std::span<const Token> first, std::span<const Token> rest) : first_(first), rest_(rest) {}

  std::size_t size() const { return first_.size() + rest_.size(); }
  Token operator[](std::size_t i) const { return i < first_.size() ? first_[i] : rest_[i - first_.size()]; }
  // How many tokens both begin with.
  std::size_t Shared(const Tokens& other) const {
    const std::size_t most = std::min(size(), other.size());
    std::size_t shared = 0;
    // A piece that is held once needs no comparison.
    if (first_.data() == other.first_.data()) shared = std::min(first_.size(), other.first_.size());
    while (shared < most && (*this)[shared] == other[shared]) ++shared;
    return shared;
  }

 private:
  std::span<const Token> first_, rest_;
};

// Sequences in lexicographic order of their tokens, in which neighbours share the longest prefixes. The
// tokens are not copied.
class SortedSequences {
 public:
  // The sequences at `which`. Every token of a sequence but its last makes a row.
  SortedSequences(std::span<const LabelledSequence> sequences, std::span<const int> which) {
    for (const int index : which) {
      const LabelledSequence& sequence = sequences[static_cast<std::size_t>(index)];
      Add(*sequence.prefix, std::span(sequence.response).first(sequence.PredictedTokens()));
    }
    // Equal tokens are ordered by their weights, so that sums of weights do not depend on input order.
    Sort([&](std::size_t a, std::size_t b) {
      return Weights(sequences[static_cast<std::size_t>(which[a])]) <
             Weights(sequences[static_cast<std::size_t>(which[b])]);
    });
  }

  // All sequences. Every token of a sequence makes a row.
  explicit SortedSequences(std::span<const std::vector<Token>> sequences) {
    for (const auto& sequence : sequences) Add(sequence, {});
    Sort([](std::size_t, std::size_t) { return false; });
  }

  std::size_t Size() const { return order_.size(); }
  // The tokens of the i-th sequence in order, and its index in the given list.
  const Tokens& operator[](std::size_t i) const { return tokens_[order_[i]]; }
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
  void Add(std::span<const Token> prefix, std::span<const Token> response) {
    if (prefix.empty()) {
      throw DataError("a sequence has an empty prefix, so nothing predicts its first response token");
    }
    total_ += prefix.size() + response.size();
    if (total_ > static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max())) {
      throw DataError(
          "the sequences of one group have more than 2^31-1 tokens; give the group fewer or shorter "
          "responses");
    }
    tokens_.emplace_back(prefix, response);
  }
  template <typename Less>
  void Sort(const Less& less_of_equals) {
    order_.resize(tokens_.size());
    std::iota(order_.begin(), order_.end(), std::size_t{0});
    std::ranges::stable_sort(order_, [&](std::size_t a, std::size_t b) {
      const std::size_t differ = tokens_[a].Shared(tokens_[b]);
      const bool a_ends = differ == tokens_[a].size(), b_ends = differ == tokens_[b].size();
      if (a_ends && b_ends) return less_of_equals(a, b);
      if (a_ends || b_ends) return a_ends;
      return tokens_[a][differ] < tokens_[b][differ];
    });
    shared_.resize(order_.size(), 0);
    for (std::size_t i = 1; i < order_.size(); ++i) shared_[i] = (*this)[i - 1].Shared((*this)[i]);
  }

  static std::tuple<std::size_t, const std::vector<double>&, const std::vector<double>&> Weights(
      const LabelledSequence& sequence) {
    return {sequence.prefix->size(), sequence.likelihood, sequence.unlikelihood};
  }

  std::vector<Tokens> tokens_;  // as they were given
  std::size_t total_ = 0;
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
  void Next(const Tokens& tokens, std::size_t shared, std::size_t fed) {
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
    const Tokens& tokens = sorted[i];
    layout.Next(tokens, sorted.Shared(i), tokens.size() - 1);
    edge_at.resize(std::min(sorted.Shared(i), edge_at.size()));
    edge_at.resize(tokens.size(), kNoEdge);

    const std::size_t given = sorted.Given(i);
    const LabelledSequence& sequence = sequences[static_cast<std::size_t>(which[given])];
    for (std::size_t t = 0; sequence.prefix->size() + t < tokens.size(); ++t) {
      const std::size_t depth = sequence.prefix->size() + t;
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
