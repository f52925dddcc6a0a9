#include "dist/ordered_sum.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <bit>
#include <stdexcept>
#include <string>

#include "dist/ordered.h"

namespace plural::dist {
namespace {

// Node (level, k), made in the tree's order from the nodes that are there; nothing where it has no group.
std::optional<at::Tensor> Combine(std::map<std::pair<int, std::int64_t>, at::Tensor>& nodes, int level,
                                  std::int64_t k, std::int64_t groups) {
  if ((k << level) >= groups) return std::nullopt;
  if (const auto it = nodes.find({level, k}); it != nodes.end()) return it->second;
  if (level == 0) throw std::logic_error("OrderedSum: group " + std::to_string(k) + " was not taken");
  std::optional<at::Tensor> left = Combine(nodes, level - 1, 2 * k, groups);
  const std::optional<at::Tensor> right = Combine(nodes, level - 1, 2 * k + 1, groups);
  if (right) left->add_(*right);
  return left;
}

// The level of the root of a tree over so many groups.
int LevelOfRoot(std::int64_t groups) { return std::bit_width(static_cast<std::uint64_t>(groups - 1)); }

}  // namespace

std::int64_t OrderedSum::MostBuffers(std::int64_t groups) { return 2 * LevelOfRoot(groups) + 1; }

OrderedSum::OrderedSum(FlatParameters& parameters, const World& world, Collectives& collectives,
                       std::int64_t block_elements)
    : parameters_(parameters), world_(world), collectives_(collectives), block_elements_(block_elements) {}

at::Tensor OrderedSum::FreeBuffer() {
  if (free_.empty())
    return at::empty(parameters_.Gradients().sizes(), parameters_.Gradients().options().device(at::kCPU));
  at::Tensor buffer = free_.back();
  free_.pop_back();
  return buffer;
}

void OrderedSum::Take(std::int64_t index) {
  Node node{0, index};
  const Node neighbour{0, index ^ 1};
  if (const auto it = nodes_.find(neighbour); it != nodes_.end()) {  // without a copy of its own
    at::Tensor sum = it->second;
    sum.add_(parameters_.Gradients().to(at::kCPU));
    nodes_.erase(it);
    node = {1, index >> 1};
    nodes_[node] = sum;
  } else {
    at::Tensor copy = FreeBuffer();
    copy.copy_(parameters_.Gradients());
    nodes_[node] = copy;
  }
  parameters_.ZeroGradients();
  // Sums of two do not depend on which is added to which.
  for (;;) {
    const auto other = nodes_.find({node.first, node.second ^ 1});
    if (other == nodes_.end()) return;
    at::Tensor sum = nodes_.at(node);
    sum.add_(other->second);
    free_.push_back(other->second);
    nodes_.erase(other);
    nodes_.erase(node);
    node = {node.first + 1, node.second >> 1};
    nodes_[node] = sum;
  }
}

void OrderedSum::Finish(std::int64_t groups_in_step) {
  const int root = LevelOfRoot(groups_in_step);
  const at::Tensor gradients = parameters_.Gradients();
  if (world_.Size() == 1) {
    gradients.copy_(*Combine(nodes_, root, 0, groups_in_step));
  } else {
    std::vector<double> mine;
    for (const auto& [node, sum] : nodes_) {
      mine.push_back(node.first);
      mine.push_back(static_cast<double>(node.second));
    }
    std::vector<std::vector<double>> of_rank;
    for (const std::string& bytes : collectives_.AllGather(BytesOf(mine)))
      of_rank.push_back(NumbersIn(bytes));

    const std::int64_t ranks = world_.Size(), all = gradients.numel();
    const std::int64_t slice = (std::min(all, block_elements_) + ranks - 1) / ranks;
    const auto options = gradients.options().device(at::kCPU);
    at::Tensor whole = at::empty({slice * ranks}, options).zero_();
    for (std::int64_t begin = 0; begin < all; begin += slice * ranks) {
      const std::int64_t count = std::min(slice * ranks, all - begin);
      std::map<Node, at::Tensor> slices;
      for (int rank = 0; rank < world_.Size(); ++rank) {
        const std::vector<double>& names = of_rank[static_cast<std::size_t>(rank)];
        for (std::size_t i = 0; i < names.size(); i += 2) {
          const Node node{static_cast<int>(names[i]), static_cast<std::int64_t>(names[i + 1])};
          if (rank == world_.Rank()) whole.narrow(0, 0, count).copy_(nodes_.at(node).narrow(0, begin, count));
          at::Tensor part = at::empty({slice}, options);
          collectives_.Scatter(whole, part, rank);
          slices[node] = part;
        }
      }
      collectives_.AllGather(*Combine(slices, root, 0, groups_in_step), whole);
      gradients.narrow(0, begin, count).copy_(whole.narrow(0, 0, count));
    }
  }
  for (const auto& [node, sum] : nodes_) free_.push_back(sum);
  nodes_.clear();
}

}  // namespace plural::dist
