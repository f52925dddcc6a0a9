// Counter-based randomness: every draw is a pure function of a key and a counter (draws.h).
//
// Owns: the generator and the index bijection, with fixed test vectors, so that results are the same
// on every platform, rank and worker. Does not own any state. Thread rule: pure functions.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "data/draws.h"

namespace plural::data {

// A stable 64-bit hash of a name (FNV-1a, finalised), for keys made of prompt ids.
std::uint64_t HashName(std::string_view name);

// A stream of draws under one key. It may be copied freely; `counter` is its whole state.
struct CounterRandom {
  std::uint64_t key = 0;
  std::uint64_t counter = 0;

  std::uint64_t Next() { return DrawAt(key, counter++); }
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
