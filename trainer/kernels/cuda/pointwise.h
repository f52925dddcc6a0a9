// The decoder's row-wise functions on a GPU: norm with residual sum, gated activation, rotation. The kernels'
// source.
//
// Owns: the work of one block. Does not own: launches (pointwise.cu), the same on the CPU (host_loops.h),
// whose formulas and roundings these are. Thread rule: all threads of a block call.
//
// A thread takes 16 bytes at a time. Sums over a row are fp32 and always in one order.
#pragma once

#include "trainer/kernels/cuda/module.h"
#include "trainer/kernels/cuda/numbers.h"

namespace plural::trainer::gpu {

constexpr int kRowThreads = 256, kRowWarps = kRowThreads / 32;

template <class E>
constexpr int kValuesOf = 16 / static_cast<int>(sizeof(E));

template <class E>
struct Values {
  float v[kValuesOf<E>];

  // Values at..at + kValuesOf of x.
  static PLURAL_DEVICE Values Load(const void* x, std::int64_t at) {
    const SixteenBytes bytes = LoadSixteen(static_cast<const E*>(x) + at);
    Values values;
    PLURAL_UNROLL
    for (int i = 0; i < 4; ++i) {
      if constexpr (sizeof(E) == 4) {
        values.v[i] = FloatOf(bytes.words[i]);
      } else {
        const FloatPair pair = Split(bytes.words[i]);
        values.v[2 * i] = pair.first;
        values.v[2 * i + 1] = pair.second;
      }
    }
    return values;
  }
  // What was rounded is what is kept.
  PLURAL_DEVICE void Store(void* x, std::int64_t at) { StoreSixteen(Rounded(), static_cast<E*>(x) + at); }
  PLURAL_DEVICE SixteenBytes Rounded() {
    SixteenBytes bytes;
    PLURAL_UNROLL
    for (int i = 0; i < 4; ++i) {
      if constexpr (sizeof(E) == 4) {
        bytes.words[i] = BitsOf(v[i]);
      } else {
        Join(v[2 * i], v[2 * i + 1], &bytes.words[i]);
        const FloatPair pair = Split(bytes.words[i]);
        v[2 * i] = pair.first;
        v[2 * i + 1] = pair.second;
      }
    }
    return bytes;
  }
};

// As many fp32 values, from `at` on.
template <class E>
PLURAL_DEVICE void LoadFloats(const float* x, std::int64_t at, float (&to)[kValuesOf<E>]) {
  PLURAL_UNROLL
  for (int i = 0; i < kValuesOf<E>; i += 4) {
    const SixteenBytes bytes = LoadSixteen(x + at + i);
    PLURAL_UNROLL
    for (int v = 0; v < 4; ++v) to[i + v] = FloatOf(bytes.words[v]);
  }
}

// A row has a block of threads, or a warp where it is so short that most of a block would wait, as heads are.
constexpr int kShortRow = 512, kShortRowThreads = 32;

// The sum of r.total over a row's threads becomes each one's r.total.
template <int kThreadsPerRow, class Block>
PLURAL_DEVICE void SumOfRow(Block& block) {
  block.WarpSum([](auto& r) -> float& { return r.total; });
  if constexpr (kThreadsPerRow == kShortRowThreads) return;
  block.Each([&](int thread, auto& r) {
    if (thread % 32 == 0) block.Store(thread, thread / 32 * 4, r.total);
  });
  block.Sync();
  block.Each([&](int thread, auto& r) {
    r.total = 0;
    PLURAL_UNROLL
    for (int warp = 0; warp < kRowWarps; ++warp) r.total += block.template Load<float>(thread, 4 * warp);
  });
}

template <class E, int kThreadsPerRow>
struct RmsNormRows {
  static constexpr int kThreads = kRowThreads, kBytes = 4 * kRowWarps, kRows = kThreads / kThreadsPerRow;
  static constexpr int kStep = kThreadsPerRow * kValuesOf<E>;
  struct Registers {
    float total;
  };

  template <class Block>
  static PLURAL_DEVICE void Run(Block& block, const RmsNormArguments& a, int index, int) {
    const std::int64_t first_row = static_cast<std::int64_t>(index) * kRows;
    block.Each([&](int thread, Registers& r) {
      r.total = 0;
      const std::int64_t row = first_row + thread / kThreadsPerRow, at = row * a.count;
      if (row >= a.rows) return;
      for (std::int64_t i = thread % kThreadsPerRow * kValuesOf<E>; i < a.count; i += kStep) {
        auto x = Values<E>::Load(a.x, at + i);
        if (a.branch != nullptr) {
          const auto branch = Values<E>::Load(a.branch, at + i);
          PLURAL_UNROLL
          for (int v = 0; v < kValuesOf<E>; ++v) x.v[v] += branch.v[v];
          x.Store(a.sum, at + i);
        }
        PLURAL_UNROLL
        for (int v = 0; v < kValuesOf<E>; ++v) r.total += x.v[v] * x.v[v];
      }
    });
    SumOfRow<kThreadsPerRow>(block);
    block.Each([&](int thread, Registers& r) {
      const std::int64_t row = first_row + thread / kThreadsPerRow, at = row * a.count;
      if (row >= a.rows) return;
      float rstd = InverseRoot(r.total / static_cast<float>(a.count) + a.eps);
      // Squares that overflow would make the row 0 and hide that a run has diverged.
      if (rstd == 0) rstd = FloatOf(0x7FC00000U);
      if (thread % kThreadsPerRow == 0) a.rstd[row] = rstd;
      for (std::int64_t i = thread % kThreadsPerRow * kValuesOf<E>; i < a.count; i += kStep) {
        auto x = Values<E>::Load(a.branch != nullptr ? a.sum : a.x, at + i);
        float weight[kValuesOf<E>];
        LoadFloats<E>(a.weight, i, weight);
        PLURAL_UNROLL
        for (int v = 0; v < kValuesOf<E>; ++v) x.v[v] = x.v[v] * rstd * weight[v];
        x.Store(a.norm, at + i);
      }
    });
  }
};

// With n = x * rstd and g = dnorm * weight: dx = rstd * (g - n * mean(g * n)) + dsum.
template <class E, int kThreadsPerRow>
struct RmsNormBackwardRows {
  static constexpr int kThreads = kRowThreads, kBytes = 4 * kRowWarps, kRows = kThreads / kThreadsPerRow;
  static constexpr int kStep = kThreadsPerRow * kValuesOf<E>;
  struct Registers {
    float total;
  };

  template <class Block>
  static PLURAL_DEVICE void Run(Block& block, const RmsNormBackwardArguments& a, int index, int) {
    const std::int64_t first_row = static_cast<std::int64_t>(index) * kRows;
    block.Each([&](int thread, Registers& r) {
      r.total = 0;
      const std::int64_t row = first_row + thread / kThreadsPerRow, at = row * a.count;
      if (row >= a.rows) return;
      const float rstd = a.rstd[row];
      for (std::int64_t i = thread % kThreadsPerRow * kValuesOf<E>; i < a.count; i += kStep) {
        const auto x = Values<E>::Load(a.x, at + i), d = Values<E>::Load(a.dnorm, at + i);
        float weight[kValuesOf<E>];
        LoadFloats<E>(a.weight, i, weight);
        PLURAL_UNROLL
        for (int v = 0; v < kValuesOf<E>; ++v) r.total += d.v[v] * weight[v] * (x.v[v] * rstd);
      }
    });
    SumOfRow<kThreadsPerRow>(block);
    block.Each([&](int thread, Registers& r) {
      const std::int64_t row = first_row + thread / kThreadsPerRow, at = row * a.count;
      if (row >= a.rows) return;
      const float rstd = a.rstd[row], mean = r.total / static_cast<float>(a.count);
      for (std::int64_t i = thread % kThreadsPerRow * kValuesOf<E>; i < a.count; i += kStep) {
        const auto x = Values<E>::Load(a.x, at + i);
        auto d = Values<E>::Load(a.dnorm, at + i);
        float weight[kValuesOf<E>];
        LoadFloats<E>(a.weight, i, weight);
        PLURAL_UNROLL
        for (int v = 0; v < kValuesOf<E>; ++v) {
          d.v[v] = (d.v[v] * weight[v] - x.v[v] * rstd * mean) * rstd;
        }
        if (a.dsum != nullptr) {
          const auto dsum = Values<E>::Load(a.dsum, at + i);
          PLURAL_UNROLL
          for (int v = 0; v < kValuesOf<E>; ++v) d.v[v] += dsum.v[v];
        }
        d.Store(a.dx, at + i);
      }
    });
  }
};

// dweight of one part of the rows: a thread has a column.
template <class E>
struct RmsNormWeightPart {
  static constexpr int kThreads = kRowThreads, kBytes = 16;
  struct Registers {};

  template <class Block>
  static PLURAL_DEVICE void Run(Block& block, const RmsNormBackwardArguments& a, int index, int part) {
    block.Each([&](int thread, Registers&) {
      const std::int64_t column = static_cast<std::int64_t>(index) * kThreads + thread;
      if (column >= a.count) return;
      float sum = 0;
      for (std::int64_t row = part * a.rows / a.parts; row < (part + 1) * a.rows / a.parts; ++row) {
        const std::int64_t at = row * a.count + column;
        sum += ToFloat(static_cast<const E*>(a.dnorm)[at]) *
               (ToFloat(static_cast<const E*>(a.x)[at]) * a.rstd[row]);
      }
      a.dweight_parts[part * a.count + column] = sum;
    });
  }
};

// activation(x) = x sigmoid; slope: of the sigmoid's argument by x.
struct Activated {
  float sigmoid, slope;

  PLURAL_DEVICE Activated(float x, bool silu) {
    constexpr float kRoot = 0.79788456080286536F, kCube = 0.044715F;  // sqrt(2 / pi)
    const float square = x * x;
    const float argument = silu ? x : 2 * x * (square * kCube + 1) * kRoot;
    slope = silu ? 1 : 2 * (square * (3 * kCube) + 1) * kRoot;
    sigmoid = 1 / (Exp2(argument * -kLog2E) + 1);
  }
  PLURAL_DEVICE float Derivative(float x) const { return sigmoid * (x * (1 - sigmoid) * slope + 1); }
};

// gate becomes activation(gate) * up.
template <class E>
PLURAL_DEVICE void ApplyGate(Values<E>& gate, const Values<E>& up, bool silu) {
  PLURAL_UNROLL
  for (int v = 0; v < kValuesOf<E>; ++v) {
    gate.v[v] = gate.v[v] * Activated(gate.v[v], silu).sigmoid * up.v[v];
  }
}
// gate and up become their gradients.
template <class E>
PLURAL_DEVICE void GateGradients(Values<E>& gate, Values<E>& up, const Values<E>& d, bool silu) {
  PLURAL_UNROLL
  for (int v = 0; v < kValuesOf<E>; ++v) {
    const float x = gate.v[v];
    const Activated activated(x, silu);
    gate.v[v] = d.v[v] * up.v[v] * activated.Derivative(x);
    up.v[v] = d.v[v] * x * activated.sigmoid;
  }
}

template <class E>
struct GatePart {
  static constexpr int kThreads = kRowThreads, kBytes = 16;
  struct Registers {};

  template <class Block>
  static PLURAL_DEVICE void Run(Block& block, const GateArguments& a, int index, int) {
    block.Each([&](int thread, Registers&) {
      const std::int64_t at = (static_cast<std::int64_t>(index) * kThreads + thread) * kValuesOf<E>;
      if (at >= a.count) return;
      auto gate = Values<E>::Load(a.gate, at), up = Values<E>::Load(a.up, at);
      if (a.dout == nullptr) {
        ApplyGate(gate, up, a.silu);
        gate.Store(a.out, at);
        return;
      }
      GateGradients(gate, up, Values<E>::Load(a.dout, at), a.silu);
      gate.Store(a.dgate, at);
      up.Store(a.dup, at);
    });
  }
};

// Turns pairs by the angles at `angle` and behind, or with `back` by their negatives.
template <class E>
PLURAL_DEVICE void Turn(Values<E>& first, Values<E>& second, const float* cos, const float* sin,
                        std::int64_t angle, bool back) {
  float c[kValuesOf<E>], s[kValuesOf<E>];
  LoadFloats<E>(cos, angle, c);
  LoadFloats<E>(sin, angle, s);
  PLURAL_UNROLL
  for (int v = 0; v < kValuesOf<E>; ++v) {
    const float sine = back ? -s[v] : s[v];
    const float turned = first.v[v] * c[v] - second.v[v] * sine;
    second.v[v] = second.v[v] * c[v] + first.v[v] * sine;
    first.v[v] = turned;
  }
}

template <class E>
struct RotatePart {
  static constexpr int kThreads = kRowThreads, kBytes = 16;
  struct Registers {};

  template <class Block>
  static PLURAL_DEVICE void Run(Block& block, const RotateArguments& a, int index, int) {
    block.Each([&](int thread, Registers&) {
      const std::int64_t pieces = a.half / kValuesOf<E>,
                         piece = static_cast<std::int64_t>(index) * kThreads + thread;
      if (piece >= a.rows * a.heads * pieces) return;
      const std::int64_t head = piece / pieces, i = piece % pieces * kValuesOf<E>;
      const std::int64_t at = head * 2 * a.half + i, angle = head / a.heads * a.half + i;
      auto first = Values<E>::Load(a.x, at), second = Values<E>::Load(a.x, at + a.half);
      Turn(first, second, a.cos, a.sin, angle, a.back);
      first.Store(a.out, at);
      second.Store(a.out, at + a.half);
    });
  }
};

// On how many blocks these start: launch.Start<Program>(x, y, arguments) -> an error, 0 for none.

constexpr std::int64_t PiecesOver(std::int64_t count, std::int64_t piece) {
  return (count + piece - 1) / piece;
}

template <template <class> class Program, class Arguments, class Launch>
int StartTyped(std::int64_t x, std::int64_t y, const Arguments& a, const Launch& launch) {
  if (x == 0 || y == 0) return 0;
  if (a.type == KernelType::kFp32) {
    return launch.template Start<Program<float>>(static_cast<int>(x), static_cast<int>(y), a);
  }
  if (a.type == KernelType::kBf16) {
    return launch.template Start<Program<Bf16>>(static_cast<int>(x), static_cast<int>(y), a);
  }
  return 1;  // cudaErrorInvalidValue
}

template <class E>
using LongRmsNormRows = RmsNormRows<E, kRowThreads>;
template <class E>
using ShortRmsNormRows = RmsNormRows<E, kShortRowThreads>;
template <class Launch>
int StartRmsNorm(const RmsNormArguments& a, const Launch& launch) {
  if (a.count > kShortRow) return StartTyped<LongRmsNormRows>(a.rows, 1, a, launch);
  return StartTyped<ShortRmsNormRows>(PiecesOver(a.rows, kRowWarps), 1, a, launch);
}

template <class E>
using LongRmsNormBackwardRows = RmsNormBackwardRows<E, kRowThreads>;
template <class E>
using ShortRmsNormBackwardRows = RmsNormBackwardRows<E, kShortRowThreads>;
template <class Launch>
int StartRmsNormBackward(const RmsNormBackwardArguments& a, const Launch& launch) {
  const int error = a.count > kShortRow
                        ? StartTyped<LongRmsNormBackwardRows>(a.rows, 1, a, launch)
                        : StartTyped<ShortRmsNormBackwardRows>(PiecesOver(a.rows, kRowWarps), 1, a, launch);
  if (error != 0 || a.dweight_parts == nullptr) return error;
  return StartTyped<RmsNormWeightPart>(PiecesOver(a.count, kRowThreads), a.parts, a, launch);
}
constexpr std::int64_t kLeastValues = 4;  // of 16 bytes: those of fp32
template <class Launch>
int StartGate(const GateArguments& a, const Launch& launch) {
  const std::int64_t values = a.type == KernelType::kFp32 ? kLeastValues : 2 * kLeastValues;
  return StartTyped<GatePart>(PiecesOver(a.count, kRowThreads * values), 1, a, launch);
}
template <class Launch>
int StartRotate(const RotateArguments& a, const Launch& launch) {
  const std::int64_t values = a.type == KernelType::kFp32 ? kLeastValues : 2 * kLeastValues;
  return StartTyped<RotatePart>(PiecesOver(a.rows * a.heads * a.half, kRowThreads * values), 1, a, launch);
}

}  // namespace plural::trainer::gpu
