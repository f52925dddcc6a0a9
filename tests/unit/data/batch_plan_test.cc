#include "data/batch_plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <numeric>
#include <random>
#include <set>
#include <stdexcept>
#include <vector>

#include "data/random.h"

namespace plural::data {
namespace {

using Assignment = std::vector<std::vector<int>>;

std::vector<std::int64_t> EpochOrder(const BatchPlan& plan, std::int64_t epoch) {
  std::vector<std::int64_t> order;
  for (std::int64_t step = 0; step < plan.StepsPerEpoch(); ++step) {
    for (const std::int64_t group : plan.StepGroups(epoch * plan.StepsPerEpoch() + step)) {
      order.push_back(group);
    }
  }
  return order;
}

TEST(BatchPlan, EveryEpochVisitsEveryGroupOnce) {
  for (const std::int64_t groups : {1, 2, 7, 64, 1001}) {
    for (const std::int64_t per_step : {1, 2, 5, 2000}) {
      const BatchPlan plan(groups, {.seed = 5, .shuffle = true, .groups_per_step = per_step});
      EXPECT_EQ(plan.StepsPerEpoch(), (groups + per_step - 1) / per_step);
      for (const std::int64_t epoch : {0, 1, 9}) {
        auto order = EpochOrder(plan, epoch);
        std::sort(order.begin(), order.end());
        std::vector<std::int64_t> all(static_cast<std::size_t>(groups));
        std::iota(all.begin(), all.end(), 0);
        EXPECT_EQ(order, all);
      }
    }
  }
}

TEST(BatchPlan, TheLastStepOfAnEpochTakesWhatIsLeft) {
  const BatchPlan plan(7, {.seed = 1, .shuffle = false, .groups_per_step = 3});
  EXPECT_EQ(plan.StepGroups(0), (std::vector<std::int64_t>{0, 1, 2}));
  EXPECT_EQ(plan.StepGroups(2), (std::vector<std::int64_t>{6}));
  EXPECT_EQ(plan.StepGroups(3), (std::vector<std::int64_t>{0, 1, 2}));
  EXPECT_EQ(plan.Epoch(2), 0);
  EXPECT_EQ(plan.Epoch(3), 1);
}

TEST(BatchPlan, OrderDependsOnSeedAndEpochAndNothingElse) {
  const BatchPlan plan(50, {.seed = 1, .shuffle = true, .groups_per_step = 2});
  EXPECT_EQ(EpochOrder(plan, 3),
            EpochOrder(BatchPlan(50, {.seed = 1, .shuffle = true, .groups_per_step = 2}), 3));
  EXPECT_NE(EpochOrder(plan, 0), EpochOrder(plan, 1));
  EXPECT_NE(EpochOrder(plan, 0),
            EpochOrder(BatchPlan(50, {.seed = 2, .shuffle = true, .groups_per_step = 2}), 0));
  // The order itself is that of the epoch; the step size only cuts it.
  EXPECT_EQ(EpochOrder(plan, 0),
            EpochOrder(BatchPlan(50, {.seed = 1, .shuffle = true, .groups_per_step = 7}), 0));
}

// The data order of all runs that exist; computed by an independent program.
TEST(BatchPlan, GoldenOrder) {
  const BatchPlan plan(10, {.seed = 42, .shuffle = true, .groups_per_step = 10});
  EXPECT_EQ(plan.StepGroups(0), (std::vector<std::int64_t>{7, 8, 3, 1, 2, 9, 6, 4, 5, 0}));
  EXPECT_EQ(plan.StepGroups(1), (std::vector<std::int64_t>{3, 8, 7, 5, 9, 4, 1, 0, 6, 2}));
}

// Positions beyond 32 bits.
TEST(BatchPlan, VeryLargeCorpora) {
  const std::int64_t groups = (std::int64_t{1} << 40) + 3;
  const BatchPlan plan(groups, {.seed = 1, .shuffle = true, .groups_per_step = 4});
  std::set<std::int64_t> seen;
  for (std::int64_t step = plan.StepsPerEpoch() - 1000; step < plan.StepsPerEpoch(); ++step) {
    for (const std::int64_t group : plan.StepGroups(step)) {
      EXPECT_GE(group, 0);
      EXPECT_LT(group, groups);
      seen.insert(group);
    }
  }
  EXPECT_EQ(seen.size(), 3999U);  // 999 full steps and a last one of three
}

TEST(BatchPlan, RefusesImpossibleSettings) {
  EXPECT_THROW(BatchPlan(0, {}), std::invalid_argument);
  EXPECT_THROW(BatchPlan(4, {.seed = 1, .shuffle = true, .groups_per_step = 0}), std::invalid_argument);
  EXPECT_THROW(BatchPlan(4, {}).StepGroups(-1), std::invalid_argument);
}

TEST(AssignToRanks, LongestFirst) {
  // 9 goes to rank 0, 8 to 1, 5 to 2, 4 to 2 (which has 5); 3 to 1, which has 8 while the others have 9.
  const std::vector<double> costs = {3, 9, 5, 8, 4};
  EXPECT_EQ(AssignToRanks(costs, 3), (Assignment{{1}, {0, 3}, {2, 4}}));
}

TEST(AssignNeighbours, CutsTheOrderWhereTheLargestLoadIsLeast) {
  EXPECT_EQ(AssignNeighbours(std::vector<double>{1, 1, 1, 1, 4}, 2), (Assignment{{0, 1, 2, 3}, {4}}));
  EXPECT_EQ(AssignNeighbours(std::vector<double>{4, 1, 1, 1, 1}, 2), (Assignment{{0}, {1, 2, 3, 4}}));
  EXPECT_EQ(AssignNeighbours(std::vector<double>{5}, 3), (Assignment{{0}, {}, {}}));
  // Against every cut of some drawn costs.
  std::mt19937_64 draw(3);
  for (int trial = 0; trial < 50; ++trial) {
    std::vector<double> costs(1 + draw() % 9);
    for (double& cost : costs) cost = static_cast<double>(1 + draw() % 30);
    const auto count = costs.size();
    double best = std::numeric_limits<double>::infinity();
    for (std::size_t a = 0; a <= count; ++a) {
      for (std::size_t b = a; b <= count; ++b) {
        const auto sum = [&](std::size_t from, std::size_t to) {
          return std::accumulate(costs.begin() + static_cast<std::ptrdiff_t>(from),
                                 costs.begin() + static_cast<std::ptrdiff_t>(to), 0.0);
        };
        best = std::min(best, std::max({sum(0, a), sum(a, b), sum(b, count)}));
      }
    }
    const Assignment found = AssignNeighbours(costs, 3);
    int next = 0;
    double largest = 0.0;
    for (const auto& indices : found) {
      double load = 0.0;
      for (const int index : indices) {
        EXPECT_EQ(index, next++);
        load += costs[static_cast<std::size_t>(index)];
      }
      largest = std::max(largest, load);
    }
    EXPECT_EQ(next, static_cast<int>(count));
    EXPECT_DOUBLE_EQ(largest, best);
  }
}

TEST(AssignToRanks, TiesGoToTheLowerIndexAndTheLowerRank) {
  EXPECT_EQ(AssignToRanks(std::vector<double>{1, 1, 1, 1, 1}, 2), (Assignment{{0, 2, 4}, {1, 3}}));
}

TEST(AssignToRanks, RanksMayStayEmpty) {
  EXPECT_EQ(AssignToRanks(std::vector<double>{2, 7}, 4), (Assignment{{1}, {0}, {}, {}}));
  EXPECT_EQ(AssignToRanks(std::vector<double>{}, 2), (Assignment{{}, {}}));
}

// Graham's bound: longest-first is never worse than 4/3 of the best, whose load is at least the mean and
// at least the largest cost.
TEST(AssignToRanks, KeepsGrahamsBound) {
  for (int ranks = 1; ranks <= 8; ++ranks) {
    std::vector<double> costs;
    for (int i = 0; i < 40; ++i) costs.push_back(1.0 + (i * 7919) % 101);
    const auto assignment = AssignToRanks(costs, ranks);
    std::multiset<int> seen;
    double largest = 0.0;
    for (const auto& indices : assignment) {
      double load = 0.0;
      for (const int index : indices) load += costs[index];
      largest = std::max(largest, load);
      seen.insert(indices.begin(), indices.end());
      EXPECT_TRUE(std::is_sorted(indices.begin(), indices.end()));
    }
    EXPECT_EQ(seen.size(), costs.size());
    EXPECT_EQ(std::set<int>(seen.begin(), seen.end()).size(), costs.size());
    const double mean = std::accumulate(costs.begin(), costs.end(), 0.0) / ranks;
    const double best = std::max(mean, *std::max_element(costs.begin(), costs.end()));
    // At most (mean + largest single cost): what a rank had before its last group, plus that group.
    EXPECT_LE(largest, mean + *std::max_element(costs.begin(), costs.end()));
    EXPECT_LE(largest, best * 4.0 / 3.0);
  }
}

// Costs like those of real dialogues, four to a rank: longest-first alone leaves 2.5 to 6 % of the time idle.
TEST(AssignToRanks, KeepsRanksBusyAtFourGroupsARank) {
  for (const int ranks : {8, 64, 1024}) {
    CounterRandom random{Mix64(static_cast<std::uint64_t>(ranks))};
    std::vector<double> costs;
    for (int i = 0; i < 4 * ranks; ++i)
      costs.push_back(400.0 + 350.0 * (random.Uniform() + random.Uniform()));
    const auto assignment = AssignToRanks(costs, ranks);
    EXPECT_GT(Balance(costs, assignment), 0.99) << ranks;
    EXPECT_EQ(AssignToRanks(costs, ranks), assignment);
  }
}

// Longest-first ends at {5, 3, 3}, {5, 3} and {4, 4}: 11. A 5 for a 4, then that 4 for a 3, makes it 9.
TEST(AssignToRanks, GroupsAreTradedWhileItHelps) {
  const std::vector<double> costs = {5, 5, 4, 4, 3, 3, 3};
  EXPECT_DOUBLE_EQ(Balance(costs, AssignToRanks(costs, 3)), 1.0);
}

TEST(Balance, IsMeanOverLargest) {
  const std::vector<double> costs = {3, 9, 5, 8, 4};
  EXPECT_DOUBLE_EQ(Balance(costs, {{0, 1}, {2, 3, 4}}), (29.0 / 2.0) / 17.0);
  EXPECT_DOUBLE_EQ(Balance(costs, {{0, 1, 2, 3, 4}}), 1.0);
  EXPECT_DOUBLE_EQ(Balance(costs, {{0, 1, 2, 3, 4}, {}}), 0.5);
  EXPECT_DOUBLE_EQ(Balance(std::vector<double>{}, {{}, {}}), 1.0);
}

}  // namespace
}  // namespace plural::data
