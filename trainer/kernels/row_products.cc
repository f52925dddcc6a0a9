#include "trainer/kernels/row_products.h"

#include <algorithm>

#include "trainer/kernels/host_vectors.h"

namespace plural::trainer::host {
namespace {

// Outputs of one tile, which reads as many streams of weights at once.
constexpr std::int64_t kTileOutputs = 4;
// Weights are prefetched this many outputs ahead into the second-level cache: two tiles.
constexpr std::int64_t kOutputsAhead = 8;
// Outputs whose weights stay in the cache while all rows are computed.
constexpr std::int64_t kBlockOutputs = 32;

// The sum of both halves of a, then that of b.
PLURAL_INLINE Vector<float> AddHalves(const Vector<float>& a, const Vector<float>& b) {
  return __builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) +
         __builtin_shufflevector(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
}

// The sums of the lanes of 4 vectors, each in the order of SumLanes: halves of two vectors at once,
// then quarters of all four, then pairs within each quarter.
PLURAL_INLINE void SumFour(const Vector<float>* v, float* sums) {
  const Vector<float> ab = AddHalves(v[0], v[1]), cd = AddHalves(v[2], v[3]);
  const Vector<float> quarters =
      __builtin_shufflevector(ab, cd, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27) +
      __builtin_shufflevector(ab, cd, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
  const Vector<float> pairs = quarters + __builtin_shufflevector(quarters, quarters, 2, 3, 0, 1, 6, 7, 4, 5,
                                                                 10, 11, 8, 9, 14, 15, 12, 13);
  const Vector<float> all =
      pairs + __builtin_shufflevector(pairs, pairs, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14);
  const Quarter<float> four = __builtin_shufflevector(all, all, 0, 4, 8, 12);
  std::memcpy(sums, &four, sizeof four);
}
PLURAL_INLINE void SumFour(const Vector<double>* v, double* sums) {
  for (int o = 0; o < 4; ++o) sums[o] = SumLanes(SumQuarters<double>(v[o]));
}

// How values are read and multiplied: one value per lane.
template <class T>
struct Lanewise {
  using Stored = T;
  using Sum = T;
  using Part = Vector<T>;
  static constexpr std::int64_t kWidth = Lanes<T>::kWidth;
  static PLURAL_INLINE Part Read(const T* from, std::int64_t count) { return Load(from, count); }
  static PLURAL_INLINE void Add(Vector<T>& sum, const Part& a, const Part& b) { sum += a * b; }
};
// How values are read and multiplied: two bf16 per lane, summed in fp32.
template <class Products>
struct Pairwise {
  using Stored = c10::BFloat16;
  using Sum = float;
  using Part = Words;
  static constexpr std::int64_t kWidth = kPairs;
  static PLURAL_INLINE Part Read(const Stored* from, std::int64_t count) { return LoadPairs(from, count); }
  static PLURAL_INLINE void Add(Vector<float>& sum, const Part& a, const Part& b) {
    Products::Add(sum, a, b);
  }
};

template <class P, int rows, int outputs>
PLURAL_INLINE void Tile(const typename P::Stored* x, const typename P::Stored* w,
                        const RowProductShape& shape, typename P::Sum* y) {
  using T = typename P::Sum;
  constexpr std::int64_t kWidth = P::kWidth;
  const std::int64_t inputs = shape.inputs;
  Vector<T> sum[rows][outputs] = {};
  const std::int64_t whole = inputs / kWidth * kWidth;
  for (std::int64_t i = 0; i < whole; i += kWidth) {
    typename P::Part weight[outputs];
#pragma GCC unroll 4
    for (int o = 0; o < outputs; ++o) {
      weight[o] = P::Read(w + o * inputs + i, kWidth);
      __builtin_prefetch(w + (o + kOutputsAhead) * inputs + i, 0, 2);
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; ++r) {
      const auto value = P::Read(x + r * inputs + i, kWidth);
#pragma GCC unroll 4
      for (int o = 0; o < outputs; ++o) P::Add(sum[r][o], value, weight[o]);
    }
  }
  if (whole < inputs) {
#pragma GCC unroll 8
    for (int r = 0; r < rows; ++r) {
      const auto value = P::Read(x + r * inputs + whole, inputs - whole);
#pragma GCC unroll 4
      for (int o = 0; o < outputs; ++o) {
        P::Add(sum[r][o], value, P::Read(w + o * inputs + whole, inputs - whole));
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < rows; ++r) {
    T sums[outputs];
    if constexpr (outputs == kTileOutputs) {
      SumFour(sum[r], sums);
    } else {
      sums[0] = SumLanes(SumQuarters<T>(sum[r][0]));
    }
#pragma GCC unroll 4
    for (int o = 0; o < outputs; ++o) {
      T& out = y[r * shape.y_stride + o];
      out = shape.add ? out + sums[o] : sums[o];
    }
  }
}

template <class P, int rows>
PLURAL_INLINE void Outputs(const typename P::Stored* x, const typename P::Stored* w,
                           const RowProductShape& shape, std::int64_t outputs, typename P::Sum* y) {
  std::int64_t o = 0;
  for (; o + kTileOutputs <= outputs; o += kTileOutputs) {
    Tile<P, rows, kTileOutputs>(x, w + o * shape.inputs, shape, y + o);
  }
  for (; o < outputs; ++o) Tile<P, rows, 1>(x, w + o * shape.inputs, shape, y + o);
}

template <class P, int tile_rows>
PLURAL_INLINE void RowProductsLoop(const typename P::Stored* x, const typename P::Stored* w,
                                   const RowProductShape& shape, typename P::Sum* y) {
  using T = typename P::Stored;
  for (std::int64_t o = 0; o < shape.outputs; o += kBlockOutputs) {
    const std::int64_t outputs = std::min(kBlockOutputs, shape.outputs - o);
    const T* block = w + o * shape.inputs;
    std::int64_t r = 0;
    for (; r + tile_rows <= shape.rows; r += tile_rows) {
      Outputs<P, tile_rows>(x + r * shape.inputs, block, shape, outputs, y + r * shape.y_stride + o);
    }
    const T* rest = x + r * shape.inputs;
    auto* out = y + r * shape.y_stride + o;
    if constexpr (tile_rows > 4) {
      if (shape.rows - r == 4) Outputs<P, 4>(rest, block, shape, outputs, out);
    }
    if constexpr (tile_rows > 3) {
      if (shape.rows - r == 3) Outputs<P, 3>(rest, block, shape, outputs, out);
    }
    if constexpr (tile_rows > 2) {
      if (shape.rows - r == 2) Outputs<P, 2>(rest, block, shape, outputs, out);
    }
    if constexpr (tile_rows > 1) {
      if (shape.rows - r == 1) Outputs<P, 1>(rest, block, shape, outputs, out);
    }
  }
}

}  // namespace

// Rows of a tile: 5 x 4 sums fit into the 32 registers of AVX-512, 1 x 4 into the 16 halves of AVX2.
#ifdef PLURAL_VERSIONS
#define PLURAL_ROW_PRODUCTS(P, T, S)                                                       \
  PLURAL_AVX512 void Version(const T* x, const T* w, const RowProductShape& shape, S* y) { \
    RowProductsLoop<P, 5>(x, w, shape, y);                                                 \
  }                                                                                        \
  PLURAL_AVX2 void Version(const T* x, const T* w, const RowProductShape& shape, S* y) {   \
    RowProductsLoop<P, 1>(x, w, shape, y);                                                 \
  }                                                                                        \
  PLURAL_BASE void Version(const T* x, const T* w, const RowProductShape& shape, S* y) {   \
    RowProductsLoop<P, 1>(x, w, shape, y);                                                 \
  }
PLURAL_ROW_PRODUCTS(Lanewise<float>, float, float)
PLURAL_ROW_PRODUCTS(Pairwise<PairProducts>, c10::BFloat16, float)

PLURAL_AVX512 void NativeVersion(const c10::BFloat16* x, const c10::BFloat16* w, const RowProductShape& shape,
                                 float* y) {
  RowProductsLoop<Pairwise<NativePairProducts>, 5>(x, w, shape, y);
}

void RowProducts(const float* x, const float* w, const RowProductShape& shape, float* y) {
  Version(x, w, shape, y);
}
void RowProducts(const c10::BFloat16* x, const c10::BFloat16* w, const RowProductShape& shape, float* y) {
  HasNativePairProducts() ? NativeVersion(x, w, shape, y) : Version(x, w, shape, y);
}
#else
void RowProducts(const float* x, const float* w, const RowProductShape& shape, float* y) {
  RowProductsLoop<Lanewise<float>, 1>(x, w, shape, y);
}
void RowProducts(const c10::BFloat16* x, const c10::BFloat16* w, const RowProductShape& shape, float* y) {
  RowProductsLoop<Pairwise<PairProducts>, 1>(x, w, shape, y);
}
#endif

void RowProducts(const double* x, const double* w, const RowProductShape& shape, double* y) {
  RowProductsLoop<Lanewise<double>, 1>(x, w, shape, y);  // for tests and exactness, not for speed
}

}  // namespace plural::trainer::host
