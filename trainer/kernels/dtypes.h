// Dtypes: their names for users, and the type in which a stored type is computed.
//
// Owns: both choices, for loops and for tensors. Does not own: options and keys that name a dtype, names in
// files (files/safetensors_header.h). Thread rule: pure.
//
// bf16 is for storage only: sums, statistics and functions of bf16 values are fp32, and parameters
// that are trained beside them are kept in fp32. fp32 and fp64 are computed in their own type.
#pragma once

#include <c10/core/ScalarType.h>
#include <c10/util/BFloat16.h>

#include <cstdint>
#include <string_view>
#include <type_traits>

namespace plural::trainer {

namespace host {

template <class T>
using Computed = std::conditional_t<std::is_same_v<T, c10::BFloat16>, float, T>;

}  // namespace host

inline c10::ScalarType ComputedIn(c10::ScalarType stored) {
  return stored == c10::ScalarType::BFloat16 ? c10::ScalarType::Float : stored;
}

// `name` is "fp32", "fp64" or "bf16", which recipes and commands have checked.
inline c10::ScalarType DTypeNamed(std::string_view name) {
  if (name == "bf16") return c10::ScalarType::BFloat16;
  return name == "fp64" ? c10::ScalarType::Double : c10::ScalarType::Float;
}

inline std::int64_t ElementBytes(std::string_view name) {
  return static_cast<std::int64_t>(c10::elementSize(DTypeNamed(name)));
}

}  // namespace plural::trainer
