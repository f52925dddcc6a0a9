#include "data/rows.h"

#include <algorithm>
#include <numeric>

#include "data/random.h"

namespace plural::data {
namespace {

struct PlacedTree {
  TokenTree tree;
  std::vector<RowPass::SequenceRef> sequences;
};

void AppendPath(std::span<const std::int32_t> edges, std::int32_t first_edge, RowPass::SequenceRef sequence,
                RowPass& pass) {
  if (pass.path_offset.empty()) pass.path_offset.push_back(0);
  for (const std::int32_t edge : edges) pass.path.push_back(first_edge + edge);
  pass.path_offset.push_back(static_cast<std::int32_t>(pass.path.size()));
  pass.sequences.push_back(sequence);
}

// The key of the path extended by `token`.
std::uint64_t Extend(std::uint64_t path_key, Token token) {
  return Mix64(path_key + Mix64(static_cast<std::uint64_t>(token)));
}

std::uint64_t RootKey(const LabelledGroup& group) { return Mix64(static_cast<std::uint64_t>(group.group)); }

void AppendPathKeys(const TokenTree& tree, std::uint64_t root_key, RowPass& pass) {
  // Depth first: the parent of a row at depth d is the last row seen at depth d - 1.
  std::vector<std::uint64_t> key_at_depth = {root_key};
  for (std::size_t row = 0; row < tree.token.size(); ++row) {
    key_at_depth.resize(static_cast<std::size_t>(tree.position[row]) + 1);
    key_at_depth.push_back(Extend(key_at_depth.back(), tree.token[row]));
    pass.path_key.push_back(key_at_depth.back());
  }
}

void AppendTree(const PlacedTree& placed, std::uint64_t root_key, double scale, RowPass& pass) {
  const TokenTree& tree = placed.tree;
  const auto first_row = static_cast<std::int32_t>(pass.token.size());
  const auto first_edge = static_cast<std::int32_t>(pass.edges.size());
  pass.token.insert(pass.token.end(), tree.token.begin(), tree.token.end());
  pass.position.insert(pass.position.end(), tree.position.begin(), tree.position.end());
  for (const std::int32_t end : tree.end) pass.end.push_back(first_row + end);
  AppendPathKeys(tree, root_key, pass);
  for (Edge edge : tree.edges) {
    edge.source += first_row;
    edge.likelihood *= scale;
    edge.unlikelihood *= scale;
    pass.edges.push_back(edge);
  }
  for (std::size_t s = 0; s < placed.sequences.size(); ++s) {
    const auto begin = static_cast<std::size_t>(tree.path_offset[s]);
    const auto end = static_cast<std::size_t>(tree.path_offset[s + 1]);
    AppendPath(std::span(tree.path).subspan(begin, end - begin), first_edge, placed.sequences[s], pass);
  }
  pass.length = static_cast<std::int64_t>(pass.token.size());
  pass.rows = pass.length;
}

// The sequences of one kind of the groups [first, last) of a step.
struct Share {
  std::span<const LabelledGroup> groups;
  std::size_t first = 0, last = 0;
  PassKind kind = PassKind::kPrediction;

  const std::vector<LabelledSequence>& Of(std::size_t group) const {
    return kind == PassKind::kRecognition ? groups[group].recognition : groups[group].sequences;
  }
};

std::vector<RowPass> PackTrees(const Share& share, const PackSettings& settings, double scale) {
  std::vector<RowPass> passes;
  for (std::size_t g = share.first; g < share.last; ++g) {
    const std::vector<LabelledSequence>& sequences = share.Of(g);
    for (const std::vector<int>& part : CutGroup(sequences, settings.cost)) {
      PlacedTree placed{.tree = BuildTree(sequences, part), .sequences = {}};
      for (const int s : part) placed.sequences.push_back({static_cast<std::int32_t>(g), s});
      // First fit; a tree beyond the budget finds no pass with room and gets its own.
      auto pass = std::ranges::find_if(
          passes, [&](const RowPass& open) { return open.rows + placed.tree.Rows() <= settings.row_budget; });
      if (pass == passes.end()) pass = passes.emplace(passes.end());
      AppendTree(placed, RootKey(share.groups[g]), scale, *pass);
    }
  }
  return passes;
}

std::int64_t FedTokens(const LabelledSequence& sequence) {
  return static_cast<std::int64_t>(sequence.prefix->size() + sequence.PredictedTokens()) - 1;
}

// Fills line `b` of a pass whose shape is set.
void FillPlainRow(const LabelledSequence& sequence, RowPass::SequenceRef ref, std::uint64_t root_key,
                  std::int64_t b, double scale, RowPass& pass) {
  const std::int64_t begin = b * pass.length;
  const auto token_at = [&](std::size_t depth) {
    return depth < sequence.prefix->size() ? (*sequence.prefix)[depth]
                                           : sequence.response[depth - sequence.prefix->size()];
  };
  const std::int64_t fed = FedTokens(sequence);
  std::uint64_t path_key = root_key;
  for (std::int64_t depth = 0; depth < fed; ++depth) {
    const auto row = static_cast<std::size_t>(begin + depth);
    pass.token[row] = token_at(static_cast<std::size_t>(depth));
    path_key = Extend(path_key, pass.token[row]);
    pass.path_key[row] = path_key;
  }
  const auto first_edge = static_cast<std::int32_t>(pass.edges.size());
  std::vector<std::int32_t> path(sequence.PredictedTokens());
  std::iota(path.begin(), path.end(), 0);
  for (std::size_t t = 0; t < path.size(); ++t) {
    const std::int64_t source = begin + static_cast<std::int64_t>(sequence.prefix->size() + t) - 1;
    pass.edges.push_back({.source = static_cast<std::int32_t>(source),
                          .target = sequence.response[t],
                          .likelihood = sequence.likelihood[t] * scale,
                          .unlikelihood = sequence.unlikelihood[t] * scale});
  }
  AppendPath(path, first_edge, ref, pass);
  pass.rows += fed;
}

std::vector<RowPass> PackPlain(const Share& share, const PackSettings& settings, double scale) {
  const auto sequence_of = [&](RowPass::SequenceRef ref) -> const LabelledSequence& {
    return share.Of(static_cast<std::size_t>(ref.group))[static_cast<std::size_t>(ref.sequence)];
  };
  std::vector<RowPass::SequenceRef> refs;
  for (std::size_t g = share.first; g < share.last; ++g) {
    for (std::size_t s = 0; s < share.Of(g).size(); ++s) {
      refs.push_back({static_cast<std::int32_t>(g), static_cast<std::int32_t>(s)});
    }
  }
  // Similar lengths share a pass, so that there is little padding.
  std::ranges::stable_sort(refs, std::greater{},
                           [&](RowPass::SequenceRef ref) { return FedTokens(sequence_of(ref)); });

  constexpr std::int64_t kPaddedTokensPerBudgetRow = 4;
  std::vector<RowPass> passes;
  for (std::size_t begin = 0; begin < refs.size();) {
    RowPass& pass = passes.emplace_back();
    pass.length = FedTokens(sequence_of(refs[begin]));
    const std::int64_t fit =
        settings.row_budget * kPaddedTokensPerBudgetRow / std::max<std::int64_t>(pass.length, 1);
    const std::size_t count =
        std::min(refs.size() - begin, static_cast<std::size_t>(std::max<std::int64_t>(fit, 1)));
    pass.batch = static_cast<std::int64_t>(count);
    pass.token.assign(static_cast<std::size_t>(pass.batch * pass.length), 0);
    pass.path_key.assign(pass.token.size(), 0);
    pass.position.reserve(pass.token.size());
    for (std::int64_t b = 0; b < pass.batch; ++b) {
      for (std::int64_t depth = 0; depth < pass.length; ++depth) {
        pass.position.push_back(static_cast<std::int32_t>(depth));
      }
      const RowPass::SequenceRef ref = refs[begin + static_cast<std::size_t>(b)];
      FillPlainRow(sequence_of(ref), ref, RootKey(share.groups[static_cast<std::size_t>(ref.group)]), b,
                   scale, pass);
    }
    begin += count;
  }
  return passes;
}

void Pack(const Share& share, const PackSettings& settings, double scale, std::vector<RowPass>& passes) {
  for (RowPass& pass : settings.layout == Layout::kTree ? PackTrees(share, settings, scale)
                                                        : PackPlain(share, settings, scale)) {
    pass.kind = share.kind;
    passes.push_back(std::move(pass));
  }
}

std::int64_t RecognitionTokens(const LabelledGroup& group) {
  std::int64_t tokens = 0;
  for (const LabelledSequence& sequence : group.recognition) tokens += FedTokens(sequence);
  return tokens;
}

}  // namespace

std::vector<RowPass> PackGroups(std::span<const LabelledGroup> groups, const PackSettings& settings,
                                double scale) {
  std::vector<RowPass> passes;
  for (std::size_t first = 0; first < groups.size();) {
    const bool recognises = !groups[first].recognition.empty();
    std::size_t last = recognises ? first + 1 : groups.size();
    for (std::int64_t tokens = RecognitionTokens(groups[first]); recognises && last < groups.size(); ++last) {
      tokens += RecognitionTokens(groups[last]);
      if (tokens > settings.row_budget) break;
    }
    Share share{.groups = groups, .first = first, .last = last};
    if (recognises) {
      share.kind = PassKind::kRecognition;
      Pack(share, settings, scale, passes);
      share.kind = PassKind::kPrediction;
    }
    Pack(share, settings, scale, passes);
    first = last;
  }
  return passes;
}

}  // namespace plural::data
