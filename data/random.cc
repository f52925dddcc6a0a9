#include "data/random.h"

#include <algorithm>
#include <array>
#include <bit>
#include <numeric>
#include <stdexcept>
#include <utility>

namespace plural::data {
std::uint64_t HashName(std::string_view name) {
  std::uint64_t hash = 0xCBF29CE484222325ULL;  // FNV-1a's 64-bit basis and prime
  for (const char byte : name) {
    hash = (hash ^ static_cast<unsigned char>(byte)) * 0x100000001B3ULL;
  }
  return Mix64(hash);
}

std::uint64_t CounterRandom::Below(std::uint64_t bound) {
  // The lowest 2^64 mod bound of the 2^64 values are rejected; the rest divides evenly.
  const std::uint64_t refused = (0 - bound) % bound;
  std::uint64_t draw = Next();
  while (draw < refused) draw = Next();
  return draw % bound;
}

std::vector<int> SampleWithoutReplacement(CounterRandom random, int bound, int count) {
  if (count < 0 || count > bound) throw std::invalid_argument("SampleWithoutReplacement: count > bound");
  std::vector<int> numbers(static_cast<std::size_t>(bound));
  std::iota(numbers.begin(), numbers.end(), 1);
  // Fisher-Yates, stopped after `count` places.
  for (int place = 0; place < count; ++place) {
    const auto left = static_cast<std::uint64_t>(bound - place);
    std::swap(numbers[place], numbers[place + random.Below(left)]);
  }
  numbers.resize(static_cast<std::size_t>(count));
  return numbers;
}

std::uint64_t PermuteIndex(std::uint64_t key, std::uint64_t size, std::uint64_t index) {
  if (index >= size) throw std::invalid_argument("PermuteIndex: index >= size");
  // The network needs an even number of bits, here at least eight: with fewer, four rounds reach
  // only a few of the possible orders, and a small corpus would repeat them.
  const int half = std::max(4, (static_cast<int>(std::bit_width(size - 1)) + 1) / 2);
  const std::uint64_t mask = (std::uint64_t{1} << half) - 1;
  std::array<std::uint64_t, 4> round_key{};
  for (std::uint64_t round = 0; round < round_key.size(); ++round) {
    round_key[round] = Mix64(key + kGolden * (round + 1));
  }
  // Walks the cycle until it is back in [0, size), which restricts the bijection of the larger
  // domain to the smaller one. The domain is at most 4 * size (or 256), so few steps are expected.
  do {
    std::uint64_t left = index >> half;
    std::uint64_t right = index & mask;
    for (const std::uint64_t k : round_key) {
      left = std::exchange(right, left ^ (Mix64(k ^ right) & mask));
    }
    index = (left << half) | right;
  } while (index >= size);
  return index;
}

}  // namespace plural::data
