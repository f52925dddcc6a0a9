// The ordered sum: gradients of a step's groups added in one order, however the groups lie on ranks.
//
// Owns: the order, partial sums, their way between ranks. Does not own: what a group's gradient is. Thread
// rule: one thread.
//
// Floating-point sums depend on their order. Here it is that of a binary tree over the groups of the step:
// node (level, k) is the sum of groups k 2^level to (k + 1) 2^level - 1, of its two halves; a half without
// groups is left out. Each rank adds what it has of it; the ranks exchange the largest nodes that are whole
// on one of them, each adds its slice of the numbers in the tree's order, and all get all slices. So 1, 2, 3
// or 64 ranks, and any split of the groups over them, give the same bits.
#pragma once

#include <ATen/core/TensorBody.h>

#include <cstdint>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "dist/collectives.h"
#include "dist/flat_parameters.h"
#include "dist/world.h"

namespace plural::dist {

class OrderedSum {
 public:
  // Where the numbers of one exchange end: for tests, since the sum does not depend on it.
  static constexpr std::int64_t kBlockElements = std::int64_t{1} << 24;

  // How many buffers of the gradient's size a rank holds at a time when it has neighbouring ones of the
  // step's `groups`.
  static std::int64_t MostBuffers(std::int64_t groups);

  OrderedSum(FlatParameters& parameters, const World& world, Collectives& collectives,
             std::int64_t block_elements = kBlockElements);

  // The flat gradient is that of the step's group `index` (from 0, ascending on this rank); it is zero
  // afterwards. Neighbours on one rank need the fewest buffers: about twice the binary logarithm of their
  // number.
  void Take(std::int64_t index);
  // The sum of all groups of the step is the flat gradient, on every rank. COLLECTIVE.
  void Finish(std::int64_t groups_in_step);

 private:
  using Node = std::pair<int, std::int64_t>;  // level, k

  at::Tensor FreeBuffer();

  FlatParameters& parameters_;
  const World& world_;
  Collectives& collectives_;
  const std::int64_t block_elements_;
  std::map<Node, at::Tensor> nodes_;  // in host memory
  std::vector<at::Tensor> free_;
};

}  // namespace plural::dist
