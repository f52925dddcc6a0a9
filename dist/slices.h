// Slices: how a flat tensor is cut among the ranks that share it.
//
// Owns: the cut. Does not own: what is shared (shards.h), how it travels (collectives.h). Thread rule: pure
// functions.
#pragma once

#include <cstdint>

namespace plural::dist {

// Slices begin at multiples of so many elements: a cache line of fp32.
inline constexpr std::int64_t kSliceUnit = 16;

struct Slice {
  std::int64_t offset = 0, size = 0;  // elements
};

// That of `rank` of `ranks`: equal ones, in the order of the ranks, and the last one has the rest, too.
inline Slice SliceOf(std::int64_t elements, int ranks, int rank) {
  const std::int64_t size = elements / ranks / kSliceUnit * kSliceUnit;
  const std::int64_t offset = rank * size;
  return {offset, rank == ranks - 1 ? elements - offset : size};
}

}  // namespace plural::dist
