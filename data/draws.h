// Keys and draws of counter-based randomness, on the host and in CUDA kernels.
//
// Owns: the hash, keys, the draw at a place of a stream. Does not own: what the draws become
// (random.h). Thread rule: pure functions.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define PLURAL_HOST_DEVICE __host__ __device__
#else
#define PLURAL_HOST_DEVICE
#endif

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

inline constexpr std::uint64_t kGolden =
    0x9E3779B97F4A7C15ULL;  // SplitMix64's increment, 2^64 / golden ratio

// SplitMix64's finaliser.
PLURAL_HOST_DEVICE constexpr std::uint64_t Mix64(std::uint64_t x) {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ULL;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBULL;
  return x ^ (x >> 31);
}

// The draw of the stream under `key` that `index` draws precede.
PLURAL_HOST_DEVICE constexpr std::uint64_t DrawAt(std::uint64_t key, std::uint64_t index) {
  return Mix64(key + kGolden * (index + 1));
}

// A key with one more number in it.
PLURAL_HOST_DEVICE constexpr std::uint64_t MixIn(std::uint64_t key, std::uint64_t part) {
  return Mix64((key ^ part) + kGolden);
}

// A key made of several numbers; order matters. The increment keeps all-zero input away from Mix64's fixed
// point 0.
PLURAL_HOST_DEVICE constexpr std::uint64_t MixKey(std::uint64_t seed, Purpose purpose, std::uint64_t a = 0,
                                                  std::uint64_t b = 0, std::uint64_t c = 0) {
  return MixIn(MixIn(MixIn(MixIn(Mix64(seed + kGolden), static_cast<std::uint64_t>(purpose)), a), b), c);
}

}  // namespace plural::data
