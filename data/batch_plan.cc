#include "data/batch_plan.h"

#include <algorithm>
#include <numeric>
#include <stdexcept>

#include "data/random.h"

namespace plural::data {

BatchPlan::BatchPlan(std::int64_t groups, const Settings& settings) : groups_(groups), settings_(settings) {
  if (groups < 1 || settings.groups_per_step < 1) {
    throw std::invalid_argument("BatchPlan: needs at least one group and one group a step");
  }
}

std::int64_t BatchPlan::StepsPerEpoch() const { return 1 + (groups_ - 1) / settings_.groups_per_step; }

std::vector<std::int64_t> BatchPlan::StepGroups(std::int64_t step) const {
  if (step < 0) throw std::invalid_argument("BatchPlan: step < 0");
  const std::int64_t epoch = Epoch(step);
  const std::int64_t begin = (step - epoch * StepsPerEpoch()) * settings_.groups_per_step;
  const std::int64_t count = std::min(settings_.groups_per_step, groups_ - begin);
  const std::uint64_t key = MixKey(settings_.seed, Purpose::kDataOrder, static_cast<std::uint64_t>(epoch));

  std::vector<std::int64_t> step_groups(static_cast<std::size_t>(count));
  std::iota(step_groups.begin(), step_groups.end(), begin);
  if (settings_.shuffle) {
    for (std::int64_t& group : step_groups) {
      group = static_cast<std::int64_t>(
          PermuteIndex(key, static_cast<std::uint64_t>(groups_), static_cast<std::uint64_t>(group)));
    }
  }
  return step_groups;
}

std::vector<std::vector<int>> AssignToRanks(std::span<const double> costs, int ranks) {
  if (ranks < 1) throw std::invalid_argument("AssignToRanks: ranks < 1");
  std::vector<int> longest_first(costs.size());
  std::iota(longest_first.begin(), longest_first.end(), 0);
  std::stable_sort(longest_first.begin(), longest_first.end(),
                   [&](int a, int b) { return costs[a] > costs[b]; });

  std::vector<std::vector<int>> assignment(static_cast<std::size_t>(ranks));
  std::vector<double> load(static_cast<std::size_t>(ranks), 0.0);
  for (const int index : longest_first) {
    const auto rank = std::min_element(load.begin(), load.end()) - load.begin();  // the first of equals
    load[rank] += costs[index];
    assignment[rank].push_back(index);
  }
  for (auto& indices : assignment) std::sort(indices.begin(), indices.end());
  return assignment;
}

double Balance(std::span<const double> costs, const std::vector<std::vector<int>>& assignment) {
  double total = 0.0;
  double largest = 0.0;
  for (const auto& indices : assignment) {
    double load = 0.0;
    for (const int index : indices) load += costs[index];
    total += load;
    largest = std::max(largest, load);
  }
  return largest > 0.0 ? total / static_cast<double>(assignment.size()) / largest : 1.0;
}

}  // namespace plural::data
