#include "data/random.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <map>
#include <set>
#include <stdexcept>
#include <utility>
#include <vector>

namespace plural::data {
namespace {

std::vector<std::uint64_t> Permutation(std::uint64_t key, std::uint64_t size) {
  std::vector<std::uint64_t> order(size);
  for (std::uint64_t i = 0; i < size; ++i) order[i] = PermuteIndex(key, size, i);
  return order;
}

// The published outputs of SplitMix64 for seed 1234567.
TEST(Random, StreamIsSplitMix64) {
  CounterRandom random{1234567};
  EXPECT_EQ(random.Next(), 6457827717110365317ULL);
  EXPECT_EQ(random.Next(), 3203168211198807973ULL);
  EXPECT_EQ(random.Next(), 9817491932198370423ULL);
  EXPECT_EQ(random.Next(), 4593380528125082431ULL);
  EXPECT_EQ(random.Next(), 16408922859458223821ULL);
}

// These values were computed by an independent program. They are the format of every run: a change here
// changes the data order and all draws of runs that exist.
TEST(Random, GoldenKeys) {
  EXPECT_EQ(MixKey(0, Purpose::kDataOrder), 0xF9AC6E337C2F0F1EULL);
  EXPECT_EQ(MixKey(42, Purpose::kDataOrder), 0x797E279FB8AFEBA3ULL);
  EXPECT_EQ(MixKey(42, Purpose::kPossibilities), 0xC135C641AF95F53AULL);
  EXPECT_EQ(MixKey(42, Purpose::kDataOrder, 7), 0x1F5D14756782E6DFULL);
  EXPECT_EQ(MixKey(42, Purpose::kDataOrder, 0, 7), 0xE7CD56B24664308DULL);
  EXPECT_EQ(MixKey(42, Purpose::kDataOrder, 1, 2, 3), 0xDE12E92564A71C3DULL);
}

TEST(Random, GoldenNames) {
  EXPECT_EQ(HashName(""), 0xF52A15E9A9B5E89BULL);
  EXPECT_EQ(HashName("a"), Mix64(0xAF63DC4C8601EC8CULL));  // FNV-1a's published value for "a"
  EXPECT_EQ(HashName("prompt-17"), 0x9E3061DAA3C8B320ULL);
}

TEST(Random, GoldenDraws) {
  CounterRandom random{42};
  const std::vector<std::uint64_t> expected = {3, 1, 8, 4, 0, 2, 5, 8};
  for (const std::uint64_t value : expected) EXPECT_EQ(random.Below(10), value);
  EXPECT_EQ(SampleWithoutReplacement(CounterRandom{42}, 9, 4), (std::vector<int>{2, 5, 3, 4}));
  EXPECT_EQ(SampleWithoutReplacement(CounterRandom{43}, 9, 9), (std::vector<int>{8, 5, 2, 9, 1, 3, 7, 6, 4}));
}

// With bound 2^63 + 1 nearly half of all draws are refused: three results take eight.
TEST(Random, BelowRefusesTheBiasedRemainder) {
  CounterRandom random{42};
  const std::uint64_t bound = (std::uint64_t{1} << 63) + 1;
  EXPECT_EQ(random.Below(bound), 4456085495900499604ULL);
  EXPECT_EQ(random.Below(bound), 6792609088808213253ULL);
  EXPECT_EQ(random.Below(bound), 5545679290133000099ULL);
  EXPECT_EQ(random.counter, 8U);
}

TEST(Random, UniformIsInTheHalfOpenInterval) {
  CounterRandom random{7};
  double sum = 0.0;
  const int draws = 100000;
  for (int i = 0; i < draws; ++i) {
    const double u = random.Uniform();
    ASSERT_GE(u, 0.0);
    ASSERT_LT(u, 1.0);
    sum += u;
  }
  // The mean's standard deviation is 1 / sqrt(12 draws); five of them.
  EXPECT_NEAR(sum / draws, 0.5, 5.0 / std::sqrt(12.0 * draws));
}

TEST(Random, SampleHasNoRepeatsAndStaysInRange) {
  for (std::uint64_t key = 0; key < 200; ++key) {
    const auto sample = SampleWithoutReplacement(CounterRandom{key}, 9, 4);
    EXPECT_EQ(std::set<int>(sample.begin(), sample.end()).size(), 4U);
    EXPECT_GE(*std::min_element(sample.begin(), sample.end()), 1);
    EXPECT_LE(*std::max_element(sample.begin(), sample.end()), 9);
  }
  EXPECT_TRUE(SampleWithoutReplacement(CounterRandom{1}, 9, 0).empty());
  EXPECT_THROW(SampleWithoutReplacement(CounterRandom{1}, 3, 4), std::invalid_argument);
}

TEST(Permutation, GoldenOrders) {
  EXPECT_EQ(Permutation(42, 10), (std::vector<std::uint64_t>{6, 4, 7, 9, 3, 2, 0, 8, 1, 5}));
  EXPECT_EQ(Permutation(43, 10), (std::vector<std::uint64_t>{4, 9, 1, 7, 8, 2, 0, 3, 5, 6}));
  const std::vector<std::uint64_t> first_of_300 = {38, 82, 7, 117, 6, 236};
  for (std::uint64_t i = 0; i < first_of_300.size(); ++i) {
    EXPECT_EQ(PermuteIndex(42, 300, i), first_of_300[i]);
  }
  const std::uint64_t large = (std::uint64_t{1} << 33) + 5;
  EXPECT_EQ(PermuteIndex(42, large, 0), 2420620830ULL);
  EXPECT_EQ(PermuteIndex(42, large, 1), 5006014744ULL);
  EXPECT_EQ(PermuteIndex(42, large, large - 1), 1565842347ULL);
  EXPECT_EQ(PermuteIndex(42, std::uint64_t{1} << 63, 1), 5063709316770459787ULL);
}

TEST(Permutation, IsABijectionOfEverySizeTo4096) {
  std::vector<std::uint32_t> seen(4096, 0);
  for (std::uint32_t size = 1; size <= 4096; ++size) {
    for (std::uint32_t i = 0; i < size; ++i) {
      const std::uint64_t image = PermuteIndex(size, size, i);
      ASSERT_LT(image, size);
      ASSERT_NE(seen[image], size) << "size " << size << " maps two indices to " << image;
      seen[image] = size;
    }
  }
}

// Too large to list: a window of 2^20 consecutive indices must have as many images, all in range.
TEST(Permutation, HasNoCollisionsInASampleOfAVeryLargeSize) {
  const std::uint64_t size = (std::uint64_t{1} << 33) + 1;
  std::vector<std::uint64_t> images;
  for (std::uint64_t i = 0; i < (1U << 20); ++i) {
    images.push_back(PermuteIndex(3, size, size - 1 - i));
    ASSERT_LT(images.back(), size);
  }
  std::sort(images.begin(), images.end());
  EXPECT_EQ(std::adjacent_find(images.begin(), images.end()), images.end());
}

// All 24 orders of four groups come up equally often: chi-square with 23 degrees of freedom has mean 23
// and standard deviation sqrt(46) = 6.8; the bound is seven of them above the mean.
TEST(Permutation, SmallOrdersAreUniform) {
  std::map<std::vector<std::uint64_t>, int> counts;
  const int keys = 24000;
  for (int key = 0; key < keys; ++key) {
    ++counts[Permutation(MixKey(42, Purpose::kDataOrder, static_cast<std::uint64_t>(key)), 4)];
  }
  EXPECT_EQ(counts.size(), 24U);
  double chi_square = 0.0;
  for (const auto& [order, count] : counts) chi_square += (count - 1000.0) * (count - 1000.0) / 1000.0;
  EXPECT_LT(chi_square, 23.0 + 7.0 * 6.8);
}

// Steps from one index's image to the next are spread evenly: chi-square over 16 classes, 15 degrees of
// freedom, mean 15, standard deviation sqrt(30) = 5.5; seven of them above the mean.
TEST(Permutation, FirstDifferencesAreUniform) {
  const std::uint64_t size = 65536;
  std::array<int, 16> classes{};
  for (std::uint64_t i = 0; i + 1 < size; ++i) {
    const std::uint64_t step = (PermuteIndex(9, size, i + 1) - PermuteIndex(9, size, i)) % size;
    ++classes[step * 16 / size];
  }
  const double expected = (size - 1) / 16.0;
  double chi_square = 0.0;
  for (const int count : classes) chi_square += (count - expected) * (count - expected) / expected;
  EXPECT_LT(chi_square, 15.0 + 7.0 * 5.5);
}

TEST(Permutation, RefusesAnIndexOutsideTheSize) {
  EXPECT_THROW(PermuteIndex(1, 5, 5), std::invalid_argument);
  EXPECT_THROW(PermuteIndex(1, 0, 0), std::invalid_argument);
}

}  // namespace
}  // namespace plural::data
