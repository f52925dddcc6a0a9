#include "trainer/kernels/tile_loops.h"

#include <array>
#include <limits>
#include <type_traits>

#include "trainer/kernels/host_vectors.h"
#include "trainer/kernels/tile_products.h"

namespace plural::trainer::host {
namespace {

template <class E>
constexpr bool kInPairs = std::is_same_v<E, c10::BFloat16>;

constexpr int kSide = 16;  // words of a vector
// Squares prefetched: 16 rows far apart are more streams than the hardware follows.
constexpr std::int64_t kFetchAhead = 4;
using Square = std::array<Words, kSide>;

// Rows become columns: four times, each row is interleaved with the one half the square below.
PLURAL_INLINE void TransposeSquare(Square& rows) {
#pragma GCC unroll 4
  for (int stage = 0; stage < 4; ++stage) {
    Square next;
#pragma GCC unroll 8
    for (std::size_t i = 0; i < kSide / 2; ++i) {
      const Words &a = rows[i], &b = rows[i + kSide / 2];
      next[2 * i] = __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
      next[2 * i + 1] =
          __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    }
    rows = next;
  }
}

// Loads `count` bytes, a whole vector or less; the rest is zero.
PLURAL_INLINE Words LoadBytes(const void* from, std::int64_t count) {
  Words words{};
  if (count >= static_cast<std::int64_t>(sizeof words)) {
    std::memcpy(&words, from, sizeof words);
  } else {
    std::memcpy(&words, from, static_cast<std::size_t>(count));
  }
  return words;
}

// Transposes words, each one fp32 or two bf16: visit(word, r, column) gets column `word` of the 16
// rows from r on.
template <class E, class Visit>
PLURAL_INLINE void VisitColumns(const E* x, std::int64_t stride, std::int64_t rows, std::int64_t count,
                                const Visit& visit) {
  constexpr auto kValues = static_cast<std::int64_t>(sizeof(std::uint32_t) / sizeof(E));
  for (std::int64_t r = 0; r < rows; r += kSide) {
    for (std::int64_t i = 0; i < count; i += kSide * kValues) {
      const std::int64_t values = count - i < kSide * kValues ? count - i : kSide * kValues;
      const std::int64_t ahead = i + kFetchAhead * kSide * kValues;
      const E* next = x + (ahead < count ? r * stride + ahead : (r + kSide) * stride + ahead - count);
      for (std::int64_t k = 0; k < kSide; ++k) __builtin_prefetch(next + k * stride);
      Square square{};
      for (std::int64_t k = 0; k < kSide && r + k < rows; ++k) {
        square[static_cast<std::size_t>(k)] =
            LoadBytes(x + (r + k) * stride + i, values * static_cast<std::int64_t>(sizeof(E)));
      }
      TransposeSquare(square);
      for (std::int64_t word = 0; word * kValues < values; ++word) {
        visit(i / kValues + word, r, square[static_cast<std::size_t>(word)]);
      }
    }
  }
}

template <class E>
PLURAL_INLINE void PackColumnsLoop(const E* x, std::int64_t stride, std::int64_t rows, std::int64_t count,
                                   E* out) {
  if constexpr (std::is_same_v<E, double>) {
    for (std::int64_t i = 0; i < count; ++i) {
      for (std::int64_t r = 0; r < WholeStrips(rows); ++r)
        out[i * kTileSide + r] = r < rows ? x[r * stride + i] : 0;
    }
  } else {
    constexpr auto kValues = static_cast<std::int64_t>(sizeof(std::uint32_t) / sizeof(E));
    VisitColumns(x, stride, rows, count,
                 [out](std::int64_t word, std::int64_t r, const Words& column) PLURAL_INLINE_LAMBDA {
                   std::memcpy(out + (word * kTileSide + r) * kValues, &column, sizeof column);
                 });
  }
}

template <class E>
PLURAL_INLINE void TransposeLoop(const E* x, std::int64_t stride, std::int64_t rows, std::int64_t count,
                                 E* out) {
  if constexpr (kInPairs<E>) {
    VisitColumns(x, stride, rows, count,
                 [=](std::int64_t word, std::int64_t r, const Words& column) PLURAL_INLINE_LAMBDA {
                   const HalfWords even = __builtin_convertvector(column, HalfWords);
                   const HalfWords odd = __builtin_convertvector(column >> 16, HalfWords);
                   std::memcpy(out + 2 * word * kTileSide + r, &even, sizeof even);
                   if (2 * word + 1 == count) return;
                   std::memcpy(out + (2 * word + 1) * kTileSide + r, &odd, sizeof odd);
                 });
  } else {
    PackColumnsLoop(x, stride, rows, count, out);
  }
}

// Loads bf16 values, each into a word.
PLURAL_INLINE Words LoadHalves(const c10::BFloat16* from, std::int64_t count) {
  HalfWords half{};
  if (count >= kSide) {
    std::memcpy(&half, from, sizeof half);
  } else {
    std::memcpy(&half, from, static_cast<std::size_t>(count) * sizeof(c10::BFloat16));
  }
  return __builtin_convertvector(half, Words);
}

template <class E>
PLURAL_INLINE void PackRowsLoop(const E* x, std::int64_t stride, std::int64_t rows, std::int64_t count,
                                E* out) {
  const std::int64_t width = WholeStrips(count);
  if constexpr (kInPairs<E>) {
    for (std::int64_t r = 0; r < WholeStrips(rows); r += 2) {
      for (std::int64_t i = 0; i < count; i += kSide) {
        const std::int64_t values = count - i < kSide ? count - i : kSide;
        const Words first = r < rows ? LoadHalves(x + r * stride + i, values) : Words{};
        const Words second = r + 1 < rows ? LoadHalves(x + (r + 1) * stride + i, values) : Words{};
        const Words pairs = first | second << 16;
        if (values == kSide) {
          std::memcpy(out + r * width + 2 * i, &pairs, sizeof pairs);
        } else {
          std::memcpy(out + r * width + 2 * i, &pairs,
                      static_cast<std::size_t>(values) * sizeof(std::uint32_t));
        }
      }
    }
  } else {
    for (std::int64_t r = 0; r < rows; ++r) {
      std::memcpy(out + r * width, x + r * stride, static_cast<std::size_t>(count) * sizeof(E));
    }
    std::memset(out + rows * width, 0,
                static_cast<std::size_t>((WholeStrips(rows) - rows) * width) * sizeof(E));
  }
}

template <class E>
PLURAL_INLINE void StoreColumnsLoop(const Computed<E>* columns, const Computed<E>* factor, std::int64_t rows,
                                    std::int64_t count, E* out, std::int64_t stride) {
  if constexpr (std::is_same_v<E, double>) {
    for (std::int64_t r = 0; r < rows; ++r) {
      for (std::int64_t i = 0; i < count; ++i) out[r * stride + i] = columns[i * kTileSide + r] * factor[r];
    }
  } else {
    for (std::int64_t r = 0; r < rows; r += kSide) {
      for (std::int64_t i = 0; i < count; i += kSide) {
        Square square{};
        for (std::int64_t k = 0; k < kSide && i + k < count; ++k) {
          std::memcpy(&square[static_cast<std::size_t>(k)], columns + (i + k) * kTileSide + r, sizeof(Words));
        }
        TransposeSquare(square);
        for (std::int64_t k = 0; k < kSide && r + k < rows; ++k) {
          Store(out + (r + k) * stride + i, AsFloats(square[static_cast<std::size_t>(k)]) * factor[r + k],
                count - i);
        }
      }
    }
  }
}

template <class E>
PLURAL_INLINE void RowDotsLoop(const E* x, const E* y, std::int64_t stride, std::int64_t rows,
                               std::int64_t count, Computed<E>* sums) {
  constexpr std::int64_t kWidth = Lanes<E>::kWidth;
  for (std::int64_t r = 0; r < rows; ++r) {
    Vector<E> sum{};
    for (std::int64_t i = 0; i < count; i += kWidth) {
      sum += Load(x + r * stride + i, count - i) * Load(y + r * stride + i, count - i);
    }
    sums[r] = SumLanes(SumQuarters<Computed<E>>(sum));
  }
}

template <class T>
PLURAL_INLINE Vector<T> WholeVector(const T* from) {
  return Load(from, Lanes<T>::kWidth);
}
template <class T>
PLURAL_INLINE void StoreWholeStrips(T* to, const Vector<T>& v) {
  Store(to, v, Lanes<T>::kWidth);
}

// -inf where the mask is 0.
template <class T>
PLURAL_INLINE Vector<T> Masked(const Vector<T>& logit, const std::uint8_t* mask) {
  using Bytes __attribute__((vector_size(Lanes<T>::kWidth))) = std::uint8_t;
  Bytes bytes;
  std::memcpy(&bytes, mask, sizeof bytes);
  const Vector<T> sees = __builtin_convertvector(bytes, Vector<T>);
  return sees > 0 ? logit : Vector<T>{} - std::numeric_limits<T>::infinity();
}

template <bool capped, class T>
PLURAL_INLINE void LogitsLoop(T* scores, const TileView& tile, const ScoreTerms& terms, T* largest) {
  constexpr std::int64_t kWidth = Lanes<T>::kWidth;
  const auto scale = static_cast<T>(terms.scale), softcap = static_cast<T>(terms.softcap);
  const T inner = capped ? scale / softcap : 0;
  for (std::int64_t r = 0; r < tile.rows; r += kWidth) {
    Vector<T> top = WholeVector(largest + r);
    for (std::int64_t k = 0; k < tile.keys; ++k) {
      const std::int64_t at = k * kTileSide + r;
      const Vector<T> score = WholeVector(scores + at);
      Vector<T> logit = capped ? Tanh(score * inner) * softcap : score * scale;
      if (tile.mask != nullptr) logit = Masked<T>(logit, tile.mask + at);
      StoreWholeStrips(scores + at, logit);
      top = Max(top, logit);
    }
    StoreWholeStrips(largest + r, top);
  }
}

PLURAL_INLINE void StorePairs(c10::BFloat16* to, const Words& first, const Words& second) {
  const Words pairs = first | second << 16;
  std::memcpy(to, &pairs, sizeof pairs);
}

template <class E>
PLURAL_INLINE void ExpLoop(const Computed<E>* logits, const TileView& tile, const Computed<E>* largest,
                           double* sums, E* p) {
  using T = Computed<E>;
  constexpr std::int64_t kWidth = Lanes<T>::kWidth;
  const std::int64_t padded = WholeStrips(tile.keys);
  for (std::int64_t r = 0; r < tile.rows; r += kWidth) {
    const Vector<T> top = WholeVector(largest + r);
    Vector<T> sum{};
    const auto exp_of = [&](std::int64_t k) PLURAL_INLINE_LAMBDA {
      const Vector<T> e = k < tile.keys ? Exp(WholeVector(logits + k * kTileSide + r) - top) : Vector<T>{};
      sum += e;
      return e;
    };
    if constexpr (kInPairs<E>) {
      for (std::int64_t k = 0; k < padded; k += 2) {
        const Words first = RoundToHalf(exp_of(k));
        StorePairs(p + k * kTileSide + 2 * r, first, RoundToHalf(exp_of(k + 1)));
      }
    } else {
      for (std::int64_t k = 0; k < padded; ++k) StoreWholeStrips(p + k * kTileSide + r, exp_of(k));
    }
    for (std::int64_t l = 0; l < kWidth; ++l) sums[r + l] += static_cast<double>(sum[l]);
  }
}

template <bool capped, class E>
PLURAL_INLINE void GradientLoop(const Computed<E>* scores, const Computed<E>* dp, const TileView& tile,
                                const Computed<E>* lse, const Computed<E>* delta, const ScoreTerms& terms,
                                E* p, E* ds, E* ds_pairs) {
  using T = Computed<E>;
  constexpr std::int64_t kWidth = Lanes<T>::kWidth;
  const auto scale = static_cast<T>(terms.scale), softcap = static_cast<T>(terms.softcap);
  const T inner = capped ? scale / softcap : 0;
  const std::int64_t padded = WholeStrips(tile.keys);
  for (std::int64_t r = 0; r < tile.rows; r += kWidth) {
    const Vector<T> level = WholeVector(lse + r), mean = WholeVector(delta + r);
    const auto gradient_of = [&](std::int64_t k) PLURAL_INLINE_LAMBDA {
      const std::int64_t at = k * kTileSide + r;
      Vector<T> e{}, gradient{};
      if (k < tile.keys) {
        const Vector<T> score = WholeVector(scores + at);
        const Vector<T> bounded = capped ? Tanh(score * inner) : Vector<T>{};
        Vector<T> logit = capped ? bounded * softcap : score * scale;
        if (tile.mask != nullptr) logit = Masked<T>(logit, tile.mask + at);
        e = Exp(logit - level);
        gradient = e * (WholeVector(dp + at) - mean) * scale;
        if (capped) gradient *= T{1} - bounded * bounded;  // the cap's slope
      }
      Store(p + at, e, kWidth);
      return gradient;
    };
    if constexpr (kInPairs<E>) {
      for (std::int64_t k = 0; k < padded; k += 2) {
        const std::int64_t at = k * kTileSide + r;
        const Words first = RoundToHalf(gradient_of(k)), second = RoundToHalf(gradient_of(k + 1));
        StoreHalf(ds + at, first, kWidth);
        StoreHalf(ds + at + kTileSide, second, kWidth);
        StorePairs(ds_pairs + at + r, first, second);
      }
    } else {
      for (std::int64_t k = 0; k < padded; ++k) StoreWholeStrips(ds + k * kTileSide + r, gradient_of(k));
    }
  }
}

}  // namespace

#define PLURAL_TILE_LOOPS(E, CLONES)                                                                         \
  CLONES void PackColumns(const E* x, std::int64_t stride, std::int64_t rows, std::int64_t count, E* out) {  \
    PackColumnsLoop(x, stride, rows, count, out);                                                            \
  }                                                                                                          \
  CLONES void Transpose(const E* x, std::int64_t stride, std::int64_t rows, std::int64_t count, E* out) {    \
    TransposeLoop(x, stride, rows, count, out);                                                              \
  }                                                                                                          \
  CLONES void PackRows(const E* x, std::int64_t stride, std::int64_t rows, std::int64_t count, E* out) {     \
    PackRowsLoop(x, stride, rows, count, out);                                                               \
  }                                                                                                          \
  CLONES void StoreColumns(const Computed<E>* columns, const Computed<E>* factor, std::int64_t rows,         \
                           std::int64_t count, E* out, std::int64_t stride) {                                \
    StoreColumnsLoop(columns, factor, rows, count, out, stride);                                             \
  }                                                                                                          \
  CLONES void RowDots(const E* x, const E* y, std::int64_t stride, std::int64_t rows, std::int64_t count,    \
                      Computed<E>* sums) {                                                                   \
    RowDotsLoop(x, y, stride, rows, count, sums);                                                            \
  }                                                                                                          \
  CLONES void ExpOfLogits(const Computed<E>* logits, const TileView& tile, const Computed<E>* largest,       \
                          double* sums, E* p) {                                                              \
    ExpLoop(logits, tile, largest, sums, p);                                                                 \
  }                                                                                                          \
  CLONES void ScoreGradient(Computed<E>* scores, Computed<E>* dp, const TileView& tile,                      \
                            const Computed<E>* lse, const Computed<E>* delta, const ScoreTerms& terms, E* p, \
                            E* ds, E* ds_pairs) {                                                            \
    if (terms.softcap > 0.0) {                                                                               \
      GradientLoop<true>(scores, dp, tile, lse, delta, terms, p, ds, ds_pairs);                              \
    } else {                                                                                                 \
      GradientLoop<false>(scores, dp, tile, lse, delta, terms, p, ds, ds_pairs);                             \
    }                                                                                                        \
  }

#define PLURAL_LOGIT_LOOPS(T, CLONES)                                                                \
  CLONES void LogitsOfScores(T* scores, const TileView& tile, const ScoreTerms& terms, T* largest) { \
    terms.softcap > 0.0 ? LogitsLoop<true>(scores, tile, terms, largest)                             \
                        : LogitsLoop<false>(scores, tile, terms, largest);                           \
  }

// fp64 is for tests and exactness, not for speed.
PLURAL_TILE_LOOPS(float, PLURAL_CLONES)
PLURAL_TILE_LOOPS(c10::BFloat16, PLURAL_CLONES)
PLURAL_TILE_LOOPS(double, )
PLURAL_LOGIT_LOOPS(float, PLURAL_CLONES)
PLURAL_LOGIT_LOOPS(double, )

}  // namespace plural::trainer::host
