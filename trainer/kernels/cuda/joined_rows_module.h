// The part of the module's interface (module.h) that reads the rows of one product for several layers.
//
// Owns: the entry points' names and types. Does not own: the kernels (joined_rows.h), their use
// (ops/joined_rows.h). Thread rule: any thread.
#pragma once

#include <cstdint>

#include "trainer/kernels/cuda/module.h"

namespace plural::trainer {

// As GateArguments, of rows [rows, 2 width] that have a gate, then its up. Device pointers, 16 bytes aligned;
// width is a multiple of 8.
struct GateJoinedArguments {
  const void *joined, *dout;  // dout null: forward
  std::int64_t rows, width;
  bool silu;      // else gelu
  void* out;      // [rows, width]
  void* djoined;  // as joined
  KernelType type;
};
inline constexpr char kGateJoinedName[] = "plural_gate_joined";
using GateJoinedOnCuda = int(const GateJoinedArguments& arguments, void* stream);

// Rows of query heads, then key heads, then as many value heads, each of 2 half values. Forward: queries and
// keys are rotated on their way to tensors of their own, values copied. Back (joined null): the other way, by
// the negative angles. Device pointers, 16 bytes aligned; half is a multiple of 8.
struct RotateJoinedArguments {
  const void* joined;
  void *q, *k, *v;
  const void *dq, *dk, *dv;
  void* djoined;
  const float *cos, *sin;  // [rows, half]
  std::int64_t rows;
  std::int32_t query_heads, key_heads, half;
  KernelType type;
};
inline constexpr char kRotateJoinedName[] = "plural_rotate_joined";
using RotateJoinedOnCuda = int(const RotateJoinedArguments& arguments, void* stream);

}  // namespace plural::trainer
