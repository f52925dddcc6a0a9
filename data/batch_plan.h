// The batch plan: which groups a step trains on, and which rank takes which of them.
//
// Owns: data order and balance, as pure functions of (seed, epoch, step) and (costs, ranks). Does not
// own: reading (loader.h). Thread rule: immutable after construction.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace plural::data {

class BatchPlan {
 public:
  struct Settings {
    std::uint64_t seed = 42;
    bool shuffle = true;
    std::int64_t groups_per_step = 2;  // global, whatever the number of ranks
  };

  // `groups` > 0: the number of groups in the corpus.
  BatchPlan(std::int64_t groups, const Settings& settings);

  // The last step of an epoch takes the remaining groups, so every group is seen once per epoch.
  std::int64_t StepsPerEpoch() const;
  std::int64_t Epoch(std::int64_t step) const { return step / StepsPerEpoch(); }
  // The groups of optimizer step `step` (counted from 0 over all epochs), in the global order.
  std::vector<std::int64_t> StepGroups(std::int64_t step) const;

 private:
  std::int64_t groups_;
  Settings settings_;
};

// Assigns groups to ranks: largest cost first, ties to the lower index and rank, then moves and
// swaps that relieve the rank with the largest load. Result[rank] holds indices into `costs` in
// ascending order; ranks may stay empty.
std::vector<std::vector<int>> AssignToRanks(std::span<const double> costs, int ranks);

// Assigns neighbours to each rank: the cut of the groups' order with the least largest load.
std::vector<std::vector<int>> AssignNeighbours(std::span<const double> costs, int ranks);

// Mean rank cost / largest rank cost, 1 = perfectly balanced: the share of time that ranks are busy.
double Balance(std::span<const double> costs, const std::vector<std::vector<int>>& assignment);

}  // namespace plural::data
