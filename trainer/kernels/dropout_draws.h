// The draws of dropout, on the host and in CUDA kernels.
//
// Owns: which element of a row is dropped, and its factor. Does not own: keys of rows and sites
// (trainer/ops/dropout.h). Thread rule: pure functions.
#pragma once

#include <cmath>
#include <cstdint>

#include "data/draws.h"

namespace plural::trainer::host {

// Draws of 53 bits below it are dropped: u < p 2^53 is CounterRandom::Uniform() < p without its rounding to
// fp64, since u is whole and p 2^53 is exact.
inline std::uint64_t DropoutThreshold(double p) {
  return static_cast<std::uint64_t>(std::ceil(p * 0x1.0p53));
}

// The stream of a row at a site.
PLURAL_HOST_DEVICE constexpr std::uint64_t DropoutStream(std::uint64_t row_key, std::uint64_t site) {
  return data::MixKey(row_key, data::Purpose::kDropout, site);
}

// The factor of a row's element `i`: 0, or `kept`, which is 1 / (1 - p).
template <class T>
PLURAL_HOST_DEVICE constexpr T DropoutFactor(std::uint64_t stream, std::uint64_t i, std::uint64_t threshold,
                                             T kept) {
  return (data::DrawAt(stream, i) >> 11) < threshold ? T(0) : kept;
}

}  // namespace plural::trainer::host
