#include "data/assignment.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <set>
#include <vector>

#include "data/random.h"

namespace plural::data {
namespace {

// Affinities that are multiples of 2^-20: sums of them are exact in double.
std::vector<float> RandomMatrix(CounterRandom& random, int rows, int columns, std::uint64_t levels) {
  std::vector<float> matrix;
  for (int i = 0; i < rows * columns; ++i) {
    const double unit = static_cast<double>(random.Below(levels)) / static_cast<double>(levels - 1);
    matrix.push_back(static_cast<float>(std::ldexp(std::round(std::ldexp(2.0 * unit - 1.0, 20)), -20)));
  }
  return matrix;
}

double Total(const std::vector<float>& affinity, int columns, const std::vector<int>& assigned) {
  double total = 0.0;
  for (std::size_t row = 0; row < assigned.size(); ++row) {
    if (assigned[row] >= 0)
      total += affinity[row * static_cast<std::size_t>(columns) + static_cast<std::size_t>(assigned[row])];
  }
  return total;
}

// Every way to give `count` of the rows different columns, tried out.
double BestByTrying(const std::vector<float>& affinity, int rows, int columns, int count) {
  double best = -1e9;
  std::vector<int> assigned(static_cast<std::size_t>(rows), -1);
  std::vector<char> taken(static_cast<std::size_t>(columns), 0);
  const auto place = [&](const auto& self, int row, int left) -> void {
    if (left == 0) best = std::max(best, Total(affinity, columns, assigned));
    if (left == 0 || row == rows) return;
    self(self, row + 1, left);
    for (int column = 0; column < columns; ++column) {
      if (taken[static_cast<std::size_t>(column)]) continue;
      taken[static_cast<std::size_t>(column)] = 1;
      assigned[static_cast<std::size_t>(row)] = column;
      self(self, row + 1, left - 1);
      assigned[static_cast<std::size_t>(row)] = -1;
      taken[static_cast<std::size_t>(column)] = 0;
    }
  };
  place(place, 0, count);
  return best;
}

void ExpectValid(const std::vector<int>& assigned, int rows, int columns, int count) {
  ASSERT_EQ(assigned.size(), static_cast<std::size_t>(rows));
  std::set<int> used;
  for (const int column : assigned) {
    ASSERT_GE(column, -1);
    ASSERT_LT(column, columns);
    if (column < 0) continue;
    EXPECT_TRUE(used.insert(column).second) << "column " << column << " is given twice";
  }
  EXPECT_EQ(used.size(), static_cast<std::size_t>(count));
}

TEST(AssignmentTest, TakesTheBestTotalWhereGreedinessFails) {
  // The greedy choice 0.9 leaves -1 for the other row: -0.1 in all, against 1.6.
  const std::vector<float> affinity = {0.9F, 0.8F,  //
                                       0.8F, -1.0F};
  EXPECT_EQ(AssignByAffinity(affinity, 2, 2, 2), (std::vector<int>{1, 0}));
  EXPECT_EQ(AssignByAffinity(affinity, 2, 2, 1), (std::vector<int>{0, -1}));
  EXPECT_EQ(AssignByAffinity(affinity, 2, 2, 0), (std::vector<int>{-1, -1}));
}

// All shapes up to 5 x 5 and all counts. Few levels make ties, many make none; all can be negative.
TEST(AssignmentTest, EqualsTryingEverything) {
  CounterRandom random{MixKey(11, Purpose::kSampling)};
  for (int rows = 1; rows <= 5; ++rows) {
    for (int columns = 1; columns <= 5; ++columns) {
      for (int count = 0; count <= std::min(rows, columns); ++count) {
        for (const std::uint64_t levels : {2U, 3U, 1000U, 1000U}) {
          const std::vector<float> affinity = RandomMatrix(random, rows, columns, levels);
          const std::vector<int> assigned = AssignByAffinity(affinity, rows, columns, count);
          ExpectValid(assigned, rows, columns, count);
          EXPECT_EQ(Total(affinity, columns, assigned), BestByTrying(affinity, rows, columns, count))
              << rows << " x " << columns << ", count " << count << ", levels " << levels;
          EXPECT_EQ(AssignByAffinity(affinity, rows, columns, count), assigned);
        }
      }
    }
  }
}

// The case of more candidates than possibility numbers.
TEST(AssignmentTest, ChoosesAmongManyRows) {
  CounterRandom random{MixKey(12, Purpose::kSampling)};
  for (int trial = 0; trial < 20; ++trial) {
    const std::vector<float> affinity = RandomMatrix(random, 9, 4, 1000);
    for (const int count : {1, 3, 4}) {
      const std::vector<int> assigned = AssignByAffinity(affinity, 9, 4, count);
      ExpectValid(assigned, 9, 4, count);
      EXPECT_EQ(Total(affinity, 4, assigned), BestByTrying(affinity, 9, 4, count));
    }
  }
}

TEST(AssignmentTest, TiesAreSettledTheSameWay) {
  EXPECT_EQ(AssignByAffinity(std::vector<float>(12, 0.0F), 3, 4, 3), (std::vector<int>{0, 1, 2}));
  EXPECT_EQ(AssignByAffinity(std::vector<float>(12, -1.0F), 4, 3, 2), (std::vector<int>{0, 1, -1, -1}));
}

// Affinities that differ by less than float sums would keep: integers decide.
TEST(AssignmentTest, SmallDifferencesCountBesideLargeOnes) {
  const float little = std::ldexp(1.0F, -39);
  const std::vector<float> affinity = {1.0F, 1.0F, 0.0F,     //
                                       1.0F, 1.0F, 0.0F,     //
                                       0.0F, 0.0F, -little,  //
                                       0.0F, 0.0F, 0.0F};
  // The third number goes to the last row, which loses nothing.
  const std::vector<int> assigned = AssignByAffinity(affinity, 4, 3, 3);
  EXPECT_EQ(assigned[2], -1);
  EXPECT_EQ(assigned[3], 2);
}

// 0/1 affinities of equal rows and columns: all paths tie, and the search must end.
TEST(AssignmentTest, EndsOnLargeMatricesFullOfTies) {
  CounterRandom random{MixKey(13, Purpose::kSampling)};
  const int rows = 120, columns = 80;
  std::vector<float> affinity;
  for (int i = 0; i < rows * columns; ++i) affinity.push_back(random.Below(8) == 0 ? 1.0F : 0.0F);
  const std::vector<int> assigned = AssignByAffinity(affinity, rows, columns, columns);
  ExpectValid(assigned, rows, columns, columns);
  EXPECT_EQ(Total(affinity, columns, assigned), columns);  // 15 ones a column: a perfect matching exists
}

}  // namespace
}  // namespace plural::data
