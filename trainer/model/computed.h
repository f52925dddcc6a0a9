// What a stored type is computed in.
//
// Owns: that choice, for loops and for tensors. Thread rule: pure.
//
// bf16 is a way to store: sums, statistics and functions of it are fp32, and what is trained beside it is
// kept in fp32. fp32 and fp64 are computed in themselves.
#pragma once

#include <c10/core/ScalarType.h>
#include <c10/util/BFloat16.h>

#include <type_traits>

namespace plural::trainer {

namespace host {

template <class T>
using Computed = std::conditional_t<std::is_same_v<T, c10::BFloat16>, float, T>;

}  // namespace host

inline c10::ScalarType ComputedIn(c10::ScalarType stored) {
  return stored == c10::ScalarType::BFloat16 ? c10::ScalarType::Float : stored;
}

}  // namespace plural::trainer
