// Rotation and gate of rows that one product made for several layers: the kernels' source.
//
// Owns: the work of one block. Does not own: the formulas (pointwise.h). Thread rule: all threads of a block
// call.
//
// What the layers made lies side by side in a row, and is read and written there: no copy of its own.
#pragma once

#include "trainer/kernels/cuda/joined_rows_module.h"
#include "trainer/kernels/cuda/pointwise.h"

namespace plural::trainer::gpu {

// A stretch of one row.
template <class E>
struct GateJoinedPart {
  static constexpr int kThreads = kRowThreads, kBytes = 16;
  static constexpr int kStretch = kThreads * kValuesOf<E>;
  struct Registers {};

  template <class Block>
  static PLURAL_DEVICE void Run(Block& block, const GateJoinedArguments& a, int row, int part) {
    block.Each([&](int thread, Registers&) {
      const std::int64_t column = static_cast<std::int64_t>(part) * kStretch + thread * kValuesOf<E>;
      if (column >= a.width) return;
      const std::int64_t at = row * a.width + column, gate_at = 2 * row * a.width + column;
      auto gate = Values<E>::Load(a.joined, gate_at), up = Values<E>::Load(a.joined, gate_at + a.width);
      if (a.dout == nullptr) {
        ApplyGate(gate, up, a.silu);
        gate.Store(a.out, at);
        return;
      }
      GateGradients(gate, up, Values<E>::Load(a.dout, at), a.silu);
      gate.Store(a.djoined, gate_at);
      up.Store(a.djoined, gate_at + a.width);
    });
  }
};

// Some pieces of one row's heads.
template <class E>
struct RotateJoinedPart {
  static constexpr int kThreads = kRowThreads, kBytes = 16;
  struct Registers {};

  template <class Block>
  static PLURAL_DEVICE void Run(Block& block, const RotateJoinedArguments& a, int row, int part) {
    block.Each([&](int thread, Registers&) {
      const int pieces = a.half / kValuesOf<E>, piece = part * kThreads + thread;
      const int heads = a.query_heads + 2 * a.key_heads;
      if (piece >= heads * pieces) return;
      const int head = piece / pieces, i = piece % pieces * kValuesOf<E>;
      const bool back = a.joined == nullptr;
      const bool query = head < a.query_heads, value = head >= a.query_heads + a.key_heads;
      void* const own = query ? a.q : value ? a.v : a.k;
      const void* const down = query ? a.dq : value ? a.dv : a.dk;
      const int before = query ? 0 : value ? a.query_heads + a.key_heads : a.query_heads;
      const std::int64_t own_heads = query ? a.query_heads : a.key_heads;
      const std::int64_t at = (row * own_heads + head - before) * 2 * a.half + i;
      const std::int64_t joined_at = (static_cast<std::int64_t>(row) * heads + head) * 2 * a.half + i;
      const void* const from = back ? down : a.joined;
      const std::int64_t from_at = back ? at : joined_at, to_at = back ? joined_at : at;
      void* const to = back ? a.djoined : own;
      auto first = Values<E>::Load(from, from_at), second = Values<E>::Load(from, from_at + a.half);
      if (!value) Turn(first, second, a.cos, a.sin, static_cast<std::int64_t>(row) * a.half + i, back);
      first.Store(to, to_at);
      second.Store(to, to_at + a.half);
    });
  }
};

template <class Launch>
int StartGateJoined(const GateJoinedArguments& a, const Launch& launch) {
  const std::int64_t stretch =
      a.type == KernelType::kFp32 ? GateJoinedPart<float>::kStretch : GateJoinedPart<Bf16>::kStretch;
  return StartTyped<GateJoinedPart>(a.rows, PiecesOver(a.width, stretch), a, launch);
}
template <class Launch>
int StartRotateJoined(const RotateJoinedArguments& a, const Launch& launch) {
  const std::int64_t values = a.type == KernelType::kFp32 ? kLeastValues : 2 * kLeastValues;
  const std::int64_t pieces = (a.query_heads + 2 * a.key_heads) * (a.half / values);
  return StartTyped<RotateJoinedPart>(a.rows, PiecesOver(pieces, kRowThreads), a, launch);
}

}  // namespace plural::trainer::gpu
