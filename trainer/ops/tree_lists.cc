#include "trainer/ops/tree_lists.h"

#include <algorithm>

namespace plural::trainer {
namespace {

// What decides about a block of rows, as queries or as keys.
struct RowRange {
  std::int64_t first = 0, last = 0;
  std::int32_t least_end = 0, largest_end = 0, least_position = 0, largest_position = 0;
  bool whole = false;  // the tree has all rows of the block
};

std::vector<RowRange> RangesOf(const data::RowPass& pass, std::int64_t rows) {
  std::vector<RowRange> ranges;
  for (std::int64_t first = 0; first < pass.length; first += rows) {
    const std::int64_t end = std::min(first + rows, pass.length);
    const auto [least_end, largest_end] =
        std::minmax_element(pass.end.begin() + first, pass.end.begin() + end);
    const auto [least, largest] =
        std::minmax_element(pass.position.begin() + first, pass.position.begin() + end);
    ranges.push_back({.first = first,
                      .last = end - 1,
                      .least_end = *least_end,
                      .largest_end = *largest_end,
                      .least_position = *least,
                      .largest_position = *largest,
                      .whole = end == first + rows});
  }
  return ranges;
}

bool MayBeSeen(const RowRange& queries, const RowRange& keys, std::int64_t window) {
  return keys.first <= queries.last && keys.largest_end > queries.first &&
         (window == 0 || queries.least_position - keys.largest_position < window);
}

bool AllSeen(const RowRange& queries, const RowRange& keys, std::int64_t window) {
  return queries.whole && keys.whole && keys.last <= queries.first && keys.least_end > queries.last &&
         (window == 0 || queries.largest_position - keys.least_position < window);
}

template <class Queries, class Keys>
TreeLists::List ListOf(const std::vector<RowRange>& blocks, const std::vector<RowRange>& tiles,
                       std::int64_t window, const Queries& queries, const Keys& keys) {
  TreeLists::List list;
  for (const RowRange& block : blocks) {
    list.first.push_back(static_cast<std::int32_t>(list.tile.size()));
    for (std::size_t i = 0; i < tiles.size(); ++i) {
      const RowRange &q = queries(block, tiles[i]), &k = keys(block, tiles[i]);
      if (!MayBeSeen(q, k, window)) continue;
      list.tile.push_back(static_cast<std::int32_t>(2 * i + (AllSeen(q, k, window) ? 0 : 1)));
    }
  }
  list.first.push_back(static_cast<std::int32_t>(list.tile.size()));
  return list;
}

}  // namespace

TreeLists MakeTreeLists(const data::RowPass& pass, std::int64_t window, const TreeListSizes& sizes) {
  const auto block = [](const RowRange& of_block, const RowRange&) -> const RowRange& { return of_block; };
  const auto tile = [](const RowRange&, const RowRange& of_tile) -> const RowRange& { return of_tile; };
  return {ListOf(RangesOf(pass, sizes.queries), RangesOf(pass, sizes.keys), window, block, tile),
          ListOf(RangesOf(pass, sizes.key_block), RangesOf(pass, sizes.query_tile), window, tile, block)};
}

}  // namespace plural::trainer
