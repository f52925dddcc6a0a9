#include "data/batch_plan.h"

#include <algorithm>
#include <numeric>
#include <stdexcept>

#include "data/random.h"

namespace plural::data {
namespace {

// A move of a group from the fullest rank, perhaps in exchange for a smaller one.
struct Trade {
  std::size_t given = 0;  // position in the fullest rank's list
  std::size_t rank = 0;   // the rank that takes it
  std::size_t taken = 0;  // position in that rank's list; its size: no exchange
  double difference = 0;  // cost that moves
  double larger = 0;      // of the two loads afterwards
};

// The trade with the least larger one of both loads. None lowers it: `larger` is the load before.
Trade BestTrade(std::span<const double> costs, const std::vector<std::vector<int>>& assignment,
                const std::vector<double>& load, std::size_t fullest) {
  Trade best{.larger = load[fullest]};
  for (std::size_t given = 0; given < assignment[fullest].size(); ++given) {
    const double cost = costs[assignment[fullest][given]];
    for (std::size_t rank = 0; rank < assignment.size(); ++rank) {
      if (rank == fullest) continue;
      for (std::size_t taken = 0; taken <= assignment[rank].size(); ++taken) {
        const double back = taken < assignment[rank].size() ? costs[assignment[rank][taken]] : 0.0;
        const double larger = std::max(load[fullest] - cost + back, load[rank] + cost - back);
        if (larger < best.larger) best = {given, rank, taken, cost - back, larger};
      }
    }
  }
  return best;
}

// Trades while it helps, a bounded number of times. One trade per rank raises the balance of 95 %
// that largest-first reaches to above 99 %.
void TradeGroups(std::span<const double> costs, std::vector<std::vector<int>>& assignment,
                 std::vector<double>& load) {
  for (std::size_t trades = 0; trades < 2 * assignment.size(); ++trades) {
    const auto fullest = static_cast<std::size_t>(std::max_element(load.begin(), load.end()) - load.begin());
    const Trade trade = BestTrade(costs, assignment, load, fullest);
    // Gains below rounding could repeat for ever.
    if (trade.larger >= load[fullest] * (1.0 - 1e-9)) return;
    auto& from = assignment[fullest];
    auto& to = assignment[trade.rank];
    const int given = from[trade.given];
    from.erase(from.begin() + static_cast<std::ptrdiff_t>(trade.given));
    if (trade.taken < to.size()) {
      from.push_back(to[trade.taken]);
      to.erase(to.begin() + static_cast<std::ptrdiff_t>(trade.taken));
    }
    to.push_back(given);
    load[fullest] -= trade.difference;
    load[trade.rank] += trade.difference;
  }
}

}  // namespace

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
  TradeGroups(costs, assignment, load);
  for (auto& indices : assignment) std::sort(indices.begin(), indices.end());
  return assignment;
}

std::vector<std::vector<int>> AssignNeighbours(std::span<const double> costs, int ranks) {
  if (ranks < 1) throw std::invalid_argument("AssignNeighbours: ranks < 1");
  // Each rank takes as many as fit under a limit, which is lowered until the last rank has no room left.
  const auto cut = [&](double limit) {
    std::vector<std::vector<int>> assignment(static_cast<std::size_t>(ranks));
    std::size_t rank = 0;
    double load = 0.0;
    for (int index = 0; index < static_cast<int>(costs.size()); ++index) {
      const double cost = costs[static_cast<std::size_t>(index)];
      if (load + cost > limit && rank + 1 < assignment.size() && !assignment[rank].empty()) {
        ++rank;
        load = 0.0;
      }
      assignment[rank].push_back(index);
      load += cost;
    }
    return assignment;
  };
  double low = 0.0, high = std::accumulate(costs.begin(), costs.end(), 0.0);
  std::vector<std::vector<int>> best = cut(high);
  double best_balance = Balance(costs, best);
  constexpr int kHalvings = 40;  // of the interval, until it is smaller than rounding
  for (int i = 0; i < kHalvings && low < high; ++i) {
    const double limit = 0.5 * (low + high);
    std::vector<std::vector<int>> assignment = cut(limit);
    double last = 0.0;
    for (const int index : assignment.back()) last += costs[static_cast<std::size_t>(index)];
    if (const double balance = Balance(costs, assignment); balance > best_balance) {
      best_balance = balance;
      best = assignment;
    }
    (last > limit ? low : high) = limit;
  }
  return best;
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
