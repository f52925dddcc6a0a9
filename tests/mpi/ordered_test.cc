// Results in the order of items, whatever the number of ranks.
#include "dist/ordered.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>

#include "dist/collectives.h"
#include "tests/mpi/mpi_world.h"

namespace plural {
namespace {

using testing::World;

// Of every length, with bytes that a text format would have to escape.
std::string ResultOf(std::int64_t item) {
  return std::string(static_cast<std::size_t>(item % 4), static_cast<char>(item)) + std::string(1, '\0');
}

TEST(GatherInOrder, GivesEveryRankAllResultsInTheOrderOfItems) {
  const auto collectives = dist::MakeMpiCollectives(World());
  for (const std::int64_t count : {0, 1, 2, 3, 4, 5, 11}) {
    std::vector<std::string> mine;
    for (const std::int64_t item : dist::MyShare(count, World())) mine.push_back(ResultOf(item));
    const std::vector<std::string> all = dist::GatherInOrder(mine, *collectives);
    ASSERT_EQ(all.size(), static_cast<std::size_t>(count));
    for (std::int64_t item = 0; item < count; ++item) {
      EXPECT_EQ(all[static_cast<std::size_t>(item)], ResultOf(item)) << item << " of " << count;
    }
  }
}

TEST(MyShare, SharesEveryItemOutOnce) {
  const auto collectives = dist::MakeMpiCollectives(World());
  std::vector<double> seen(10, 0.0);
  for (const std::int64_t item : dist::MyShare(10, World())) seen[static_cast<std::size_t>(item)] += 1.0;
  collectives->AllReduceSum(seen);
  EXPECT_EQ(seen, std::vector<double>(10, 1.0));
}

TEST(Numbers, KeepTheirBits) {
  const std::vector<double> numbers = {0.1, -0.0, HUGE_VAL, std::numeric_limits<double>::denorm_min()};
  const std::vector<double> back = dist::NumbersIn(dist::BytesOf(numbers));
  ASSERT_EQ(back.size(), numbers.size());
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    EXPECT_EQ(std::signbit(back[i]), std::signbit(numbers[i]));
    EXPECT_EQ(back[i], numbers[i]);
  }
  EXPECT_THROW(dist::NumbersIn("seven b"), std::logic_error);
}

}  // namespace
}  // namespace plural
