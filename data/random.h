// Counter-based randomness: every draw is a pure function of a key and a counter.
//
// Owns: the generator and the index bijection, with fixed test vectors, so that results are the same
// on every platform, rank and worker. Does not own any state. Thread rule: pure functions.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace plural::data {

// The purpose of a stream of draws; part of its key, so that two purposes never share draws.
enum class Purpose : std::uint64_t {
  kDataOrder = 1,
  kPossibilities = 2,
  kNegatives = 3,
  kInitialWeights = 4,
  kDropout = 5,
  kSampling = 6,
  kBootstrap = 7,
  kLatents = 8,
};

// SplitMix64's finaliser.
std::uint64_t Mix64(std::uint64_t x);

// A key made of several numbers; order matters.
std::uint64_t MixKey(std::uint64_t seed, Purpose purpose, std::uint64_t a = 0, std::uint64_t b = 0,
                     std::uint64_t c = 0);

// A stable 64-bit hash of a name (FNV-1a, finalised), for keys made of prompt ids.
std::uint64_t HashName(std::string_view name);

// A stream of draws under one key. It may be copied freely; `counter` is its whole state.
struct CounterRandom {
  std::uint64_t key = 0;
  std::uint64_t counter = 0;

  std::uint64_t Next() { return Mix64(key + 0x9E3779B97F4A7C15ULL * ++counter); }
  // Uniform in [0, 1), 53 bits.
  double Uniform() { return static_cast<double>(Next() >> 11) * 0x1.0p-53; }
  // Uniform in [0, bound), without bias (rejection). bound > 0.
  std::uint64_t Below(std::uint64_t bound);
};

// `count` different numbers of 1..bound in random order. count <= bound.
std::vector<int> SampleWithoutReplacement(CounterRandom random, int bound, int count);

// A keyed bijection of [0, size): a four-round Feistel network with cycle walking. O(1) memory, so an
// epoch's order needs no index file and resuming needs no state.
std::uint64_t PermuteIndex(std::uint64_t key, std::uint64_t size, std::uint64_t index);

}  // namespace plural::data
