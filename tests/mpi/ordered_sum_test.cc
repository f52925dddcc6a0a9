// The sum does not depend on which rank has which groups, and is not just any sum.
#include "dist/ordered_sum.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <numeric>
#include <random>
#include <vector>

#include "dist/collectives.h"
#include "tests/mpi/mpi_world.h"

namespace plural::dist {
namespace {

constexpr std::int64_t kNumbers = 203;

// The gradient of a group: numbers of very different sizes, whose sum depends on the order.
at::Tensor GradientOf(std::int64_t group) {
  std::mt19937_64 draw(static_cast<std::uint64_t>(group));
  at::Tensor numbers = at::empty({kNumbers});
  for (std::int64_t i = 0; i < kNumbers; ++i) {
    const double size = std::exp2(static_cast<double>(draw() % 24));
    numbers.data_ptr<float>()[i] =
        static_cast<float>(size * (static_cast<double>(draw() % 2000) - 1000.0) / 999.0);
  }
  return numbers;
}

// What this rank gets when `rank_of` says who has which group.
std::vector<float> Sum(const std::vector<int>& rank_of, std::int64_t block_elements) {
  const auto collectives = MakeMpiCollectives(testing::World());
  const at::Tensor parameter = at::empty({kNumbers}).requires_grad_();
  FlatParameters parameters({{"numbers", parameter}});
  OrderedSum sum(parameters, testing::World(), *collectives, block_elements);
  std::vector<float> result;
  for (int step = 0; step < 2; ++step) {  // buffers are used again
    for (std::size_t group = 0; group < rank_of.size(); ++group) {
      if (rank_of[group] != testing::World().Rank()) continue;
      parameters.Gradients().narrow(0, 0, kNumbers).copy_(GradientOf(static_cast<std::int64_t>(group)));
      sum.Take(static_cast<std::int64_t>(group));
    }
    sum.Finish(static_cast<std::int64_t>(rank_of.size()));
    const at::Tensor got = parameters.Gradients().narrow(0, 0, kNumbers).contiguous();
    std::vector<float> now(got.data_ptr<float>(), got.data_ptr<float>() + kNumbers);
    if (step > 0) {
      EXPECT_EQ(std::memcmp(now.data(), result.data(), sizeof(float) * kNumbers), 0);
    }
    result = now;
  }
  return result;
}

// By the definition: halves of the range of groups that is the next power of two.
std::vector<float> ByDefinition(std::int64_t first, std::int64_t span, std::int64_t groups) {
  if (first >= groups) return {};
  if (span == 1) {
    const at::Tensor numbers = GradientOf(first);
    return {numbers.data_ptr<float>(), numbers.data_ptr<float>() + kNumbers};
  }
  std::vector<float> left = ByDefinition(first, span / 2, groups);
  const std::vector<float> right = ByDefinition(first + span / 2, span / 2, groups);
  for (std::size_t i = 0; i < right.size(); ++i) left[i] += right[i];
  return left;
}

TEST(OrderedSum, HasTheSameBitsForAnySplit) {
  const int ranks = testing::World().Size();
  for (const std::int64_t groups : {1, 2, 5, 8, 13}) {
    SCOPED_TRACE(groups);
    const std::vector<float> expected = ByDefinition(0, 16, groups);
    std::mt19937_64 draw(static_cast<std::uint64_t>(7 * groups));
    for (int split = 0; split < 6; ++split) {
      std::vector<int> rank_of(static_cast<std::size_t>(groups), 0);  // split 0: all on one rank
      for (std::size_t group = 0; group < rank_of.size() && split > 0; ++group) {
        rank_of[group] = static_cast<int>(draw() % static_cast<std::uint64_t>(ranks));
      }
      // Blocks that are whole, that cut the numbers unevenly, and that are smaller than a slice.
      const std::vector<float> got = Sum(rank_of, split % 3 == 0 ? 1 << 20 : split % 3 == 1 ? 100 : 33);
      EXPECT_EQ(std::memcmp(got.data(), expected.data(), sizeof(float) * kNumbers), 0) << "split " << split;
    }
  }
}

TEST(OrderedSum, OrderMatters) {
  std::vector<float> forward(kNumbers, 0.0F);
  for (std::int64_t group = 0; group < 8; ++group) {
    const at::Tensor numbers = GradientOf(group);
    for (std::int64_t i = 0; i < kNumbers; ++i) {
      forward[static_cast<std::size_t>(i)] += numbers.data_ptr<float>()[i];
    }
  }
  EXPECT_NE(forward, ByDefinition(0, 8, 8)) << "these numbers would not show a wrong order";
}

}  // namespace
}  // namespace plural::dist
