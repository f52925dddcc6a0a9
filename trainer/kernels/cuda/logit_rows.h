// Statistics and gradients of rows of logits on a GPU. The kernels' source.
//
// Owns: the work of one block, which has one row. Does not own: launches (logit_rows.cu), the formulas'
// meaning (ops/softmax_rows.h), the same on the CPU (host_loops.h). Thread rule: all threads of a block call.
//
// A row is read once for all its statistics: each thread keeps the largest logit that it has seen, where it
// was, and sums over all others in units of its exponential. So 1 - p of the largest token keeps its digits.
#pragma once

#include "trainer/kernels/cuda/logit_rows_module.h"
#include "trainer/kernels/cuda/numbers.h"

namespace plural::trainer::gpu {

constexpr int kLogitThreads = 512, kLogitWarps = kLogitThreads / 32;

// What is known of some logits: the largest, its column, the sum of exp(z - largest) over the others, and of
// (z - largest) times it.
struct LogitSums {
  float largest, below, weighted;
  int column;

  PLURAL_DEVICE void Clear() {
    largest = MinusInfinity();
    below = weighted = 0;
    column = 0;
  }
  PLURAL_DEVICE void Add(float z, int at) { Merge({z, 0, 0, at}); }
  PLURAL_DEVICE void Merge(const LogitSums& other) {
    // Value by value: a reference to the smaller one would put both into memory.
    const bool first = largest >= other.largest;
    const float least = first ? other.largest : largest, small_below = first ? other.below : below;
    const float small_weighted = first ? other.weighted : weighted;
    if (!first) *this = other;
    if (least == MinusInfinity()) return;
    const float apart = least - largest, factor = Exp2(apart * kLog2E);
    below += factor * (small_below + 1);
    weighted += factor * (small_weighted + apart * (small_below + 1));
  }
};

// The sums of all threads, in every thread's r.sums; the lowest column of equal ones in no order that
// matters.
template <class Block>
PLURAL_DEVICE void MergeSums(Block& block) {
  block.Each([&](int thread, auto& r) { block.Store(thread, 16 * thread, r.sums); });
  for (int half = kLogitThreads / 2; half > 0; half /= 2) {
    block.Sync();
    block.Each([&](int thread, auto& r) {
      if (thread >= half) return;
      r.sums.Merge(block.template Load<LogitSums>(thread, 16 * (thread + half)));
      block.Store(thread, 16 * thread, r.sums);
    });
  }
  block.Sync();
  block.Each([&](int thread, auto& r) { r.sums = block.template Load<LogitSums>(thread, 0); });
}

struct LogitRegisters {
  LogitSums sums;
};

template <class Block>
PLURAL_DEVICE void SumsOfRow(Block& block, const float* z, std::int64_t count, float inverse) {
  block.Each([&](int thread, LogitRegisters& r) {
    r.sums.Clear();
    for (std::int64_t i = thread; i < count; i += kLogitThreads)
      r.sums.Add(z[i] * inverse, static_cast<int>(i));
  });
  MergeSums(block);
}

struct LogitStatisticsRow {
  static constexpr int kThreads = kLogitThreads, kBytes = 16 * kLogitThreads;
  using Registers = LogitRegisters;

  template <class Block>
  static PLURAL_DEVICE void Run(Block& block, const RowStatisticsArguments& a, int row, int) {
    SumsOfRow(block, a.z + row * a.count, a.count, a.inverse_temperature);
    block.Each([&](int thread, LogitRegisters& r) {
      if (thread != 0) return;
      const LogitSums& sums = r.sums;
      const double largest = sums.largest, below = sums.below;
      a.lse[row] = largest + LogOnePlus(below);
      if (a.entropy_nats != nullptr) a.entropy_nats[row] = LogOnePlus(below) - sums.weighted / (1 + below);
      if (a.lse_of_others != nullptr) {
        a.lse_of_others[row] = largest + Log(below);
        a.column[row] = sums.column;
      }
    });
  }
};

// Overwrites z with c p, times the slope of the bound, as host::RowGradient. Threads are on their own: a
// block takes a stretch of a row.
struct LogitGradientPart {
  static constexpr int kThreads = kLogitThreads, kBytes = 16, kStretch = 8 * kThreads;
  struct Registers {};

  template <class Block>
  static PLURAL_DEVICE void Run(Block& block, const RowGradientArguments& a, int row, int part) {
    float* z = a.z + row * a.count;
    const std::int64_t begin = static_cast<std::int64_t>(part) * kStretch;
    const std::int64_t end = begin + kStretch < a.count ? begin + kStretch : a.count;
    const auto lse = static_cast<float>(a.lse[row]), c = static_cast<float>(a.c[row]);
    const float inverse_cap = a.softcap > 0 ? 1 / a.softcap : 0;
    block.Each([&](int thread, Registers&) {
      for (std::int64_t i = begin + thread; i < end; i += kThreads) {
        const float bounded = z[i] * inverse_cap;
        z[i] = Exp2((z[i] - lse) * kLog2E) * c * (1 - bounded * bounded);
      }
    });
  }
};

template <class Launch>
int StartRowStatistics(const RowStatisticsArguments& a, const Launch& launch) {
  return a.rows == 0 ? 0 : launch.template Start<LogitStatisticsRow>(static_cast<int>(a.rows), 1, a);
}
template <class Launch>
int StartRowGradient(const RowGradientArguments& a, const Launch& launch) {
  if (a.rows == 0) return 0;
  const std::int64_t parts = (a.count + LogitGradientPart::kStretch - 1) / LogitGradientPart::kStretch;
  return launch.template Start<LogitGradientPart>(static_cast<int>(a.rows), static_cast<int>(parts), a);
}

}  // namespace plural::trainer::gpu
