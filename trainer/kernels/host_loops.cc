#include "trainer/kernels/host_loops.h"

#include <cmath>
#include <limits>
#include <type_traits>

#include "trainer/kernels/host_vectors.h"

namespace plural::trainer::host {
namespace {

// `weighs`: the entropy, too, else it is 0.
template <bool weighs, class T>
PLURAL_INLINE RowStatistics StatisticsOfRowLoop(const T* z, std::int64_t count, double temperature) {
  constexpr std::int64_t kWidth = Lanes<T>::kWidth;
  constexpr T kLowest = -std::numeric_limits<T>::infinity();
  Vector<T> largest = Vector<T>{} + kLowest;
  for (std::int64_t i = 0; i < count; i += kWidth) largest = Max(largest, Load(z + i, count - i, kLowest));
  T top = kLowest;
  for (std::int64_t l = 0; l < kWidth; ++l) top = largest[l] > top ? largest[l] : top;

  // Lanes add up few values each before they are summed in fp64: 32,000 in one fp32 sum would lose digits.
  constexpr std::int64_t kBlock = 64 * kWidth;
  const auto inverse = static_cast<T>(1.0 / temperature);
  double sum = 0.0, weighted = 0.0;
  for (std::int64_t begin = 0; begin < count; begin += kBlock) {
    const std::int64_t end = begin + kBlock < count ? begin + kBlock : count;
    Vector<T> sums{}, weights{};
    for (std::int64_t i = begin; i < end; i += kWidth) {
      const Vector<T> below = (Load(z + i, end - i, kLowest) - top) * inverse;
      const Vector<T> e = Exp(below);
      sums += e;
      if constexpr (weighs) weights += e > 0 ? e * below : Vector<T>{};  // 0 * -inf
    }
    sum += Sum<T>(sums);
    if constexpr (weighs) weighted += Sum<T>(weights);
  }
  const double log_sum = std::log(sum);
  return {static_cast<double>(top) / temperature + log_sum, weighs ? log_sum - weighted / sum : 0.0};
}

template <class T>
PLURAL_INLINE void RowGradientLoop(T* z, std::int64_t count, const RowGradientTerms& terms) {
  constexpr std::int64_t kWidth = Lanes<T>::kWidth;
  const auto lse = static_cast<T>(terms.lse);
  const auto c = static_cast<T>(terms.c), a = static_cast<T>(terms.a);
  const auto inverse_b = static_cast<T>(1.0 / terms.b), lse_b = static_cast<T>(terms.lse_b);
  const auto inverse_cap = static_cast<T>(terms.softcap > 0.0 ? 1.0 / terms.softcap : 0.0);
  if (a == 0 && inverse_cap == 0) {
    for (std::int64_t i = 0; i < count; i += kWidth) {
      Store(z + i, Exp(Load(z + i, count - i) - lse) * c, count - i);
    }
    return;
  }
  for (std::int64_t i = 0; i < count; i += kWidth) {
    const Vector<T> logit = Load(z + i, count - i);
    Vector<T> gradient = Exp(logit - lse) * c;
    if (a != 0) gradient += a * Exp(logit * inverse_b - lse_b);
    const Vector<T> bounded = logit * inverse_cap;
    Store(z + i, gradient * (T{1} - bounded * bounded), count - i);
  }
}

template <class T>
PLURAL_INLINE void RmsNormLoop(const T* x, const T* branch, const Computed<T>* weight, double eps,
                               std::int64_t rows, std::int64_t count, T* sum, T* norm, Computed<T>* rstd) {
  using C = Computed<T>;
  constexpr std::int64_t kWidth = Lanes<T>::kWidth;
  for (std::int64_t row = 0; row < rows; ++row) {
    const std::int64_t at = row * count;
    Vector<T> squares{};
    for (std::int64_t i = 0; i < count; i += kWidth) {
      Vector<T> value = Load(x + at + i, count - i);
      if (branch != nullptr) {
        value += Load(branch + at + i, count - i);
        Store(sum + at + i, value, count - i);
        if constexpr (!std::is_same_v<T, C>) value = Load(sum + at + i, count - i);  // as rounded
      }
      squares += value * value;
    }
    auto scale = static_cast<C>(1.0 / std::sqrt(Sum<C>(squares) / static_cast<double>(count) + eps));
    // Squares that overflow would make the row 0 and hide that a run has diverged.
    if (scale == 0) scale = std::numeric_limits<C>::quiet_NaN();
    rstd[row] = scale;
    const T* values = branch != nullptr ? sum + at : x + at;
    for (std::int64_t i = 0; i < count; i += kWidth) {
      Store(norm + at + i, Load(values + i, count - i) * scale * Load(weight + i, count - i), count - i);
    }
  }
}

// With n = x * rstd and g = dnorm * weight: dx = rstd * (g - n * mean(g * n)).
template <class T>
PLURAL_INLINE void RmsNormBackwardLoop(const T* x, const Computed<T>* rstd, const Computed<T>* weight,
                                       const T* dnorm, const T* dsum, std::int64_t rows, std::int64_t count,
                                       T* dx, Computed<T>* dweight) {
  using C = Computed<T>;
  constexpr std::int64_t kWidth = Lanes<T>::kWidth;
  for (std::int64_t row = 0; row < rows; ++row) {
    const std::int64_t at = row * count;
    const C scale = rstd[row];
    Vector<T> products{};
    for (std::int64_t i = 0; i < count; i += kWidth) {
      const Vector<T> n = Load(x + at + i, count - i) * scale;
      const Vector<T> g = Load(dnorm + at + i, count - i);
      if (dweight != nullptr) Store(dweight + i, Load(dweight + i, count - i) + g * n, count - i);
      products += g * Load(weight + i, count - i) * n;
    }
    const auto mean = static_cast<C>(Sum<C>(products) / static_cast<double>(count));
    for (std::int64_t i = 0; i < count; i += kWidth) {
      const Vector<T> n = Load(x + at + i, count - i) * scale;
      const Vector<T> g = Load(dnorm + at + i, count - i) * Load(weight + i, count - i);
      Vector<T> gradient = (g - n * mean) * scale;
      if (dsum != nullptr) gradient += Load(dsum + at + i, count - i);
      Store(dx + at + i, gradient, count - i);
    }
  }
}

template <class T>
PLURAL_INLINE void SwiGluLoop(const T* gate, const T* up, std::int64_t count, T* out) {
  constexpr std::int64_t kWidth = Lanes<T>::kWidth;
  for (std::int64_t i = 0; i < count; i += kWidth) {
    const Vector<T> g = Load(gate + i, count - i);
    Store(out + i, g / (Exp(-g) + Computed<T>{1}) * Load(up + i, count - i), count - i);
  }
}

template <class T>
PLURAL_INLINE void SwiGluBackwardLoop(const T* gate, const T* up, const T* dout, std::int64_t count, T* dgate,
                                      T* dup) {
  constexpr std::int64_t kWidth = Lanes<T>::kWidth;
  for (std::int64_t i = 0; i < count; i += kWidth) {
    const Vector<T> g = Load(gate + i, count - i);
    const Vector<T> d = Load(dout + i, count - i);
    const Vector<T> sigmoid = Computed<T>{1} / (Exp(-g) + Computed<T>{1});
    Store(dup + i, d * g * sigmoid, count - i);
    const Vector<T> slope = sigmoid * (g * (Computed<T>{1} - sigmoid) + Computed<T>{1});
    Store(dgate + i, d * Load(up + i, count - i) * slope, count - i);
  }
}

template <class T>
PLURAL_INLINE void SoftCapLoop(T* z, std::int64_t count, double cap) {
  constexpr std::int64_t kWidth = Lanes<T>::kWidth;
  const auto factor = static_cast<T>(cap), inverse = static_cast<T>(1.0 / cap);
  for (std::int64_t i = 0; i < count; i += kWidth) {
    Store(z + i, Tanh(Load(z + i, count - i) * inverse) * factor, count - i);
  }
}

// gelu(x) = x / 2 (1 + tanh u) = x sigmoid(2u), u = sqrt(2 / pi) (x + 0.044715 x^3).
template <class T>
struct Gelu {
  static constexpr T kRoot = T(0.7978845608028653558799), kCube = T(0.044715);
  Vector<T> sigmoid, slope;  // slope: du/dx
  PLURAL_INLINE explicit Gelu(const Vector<T>& x) {
    const Vector<T> square = x * x;
    const Vector<T> u = x * (square * kCube + T{1}) * kRoot;
    sigmoid = T{1} / (Exp(u * T{-2}) + T{1});
    slope = (square * (3 * kCube) + T{1}) * kRoot;
  }
};

template <class T>
PLURAL_INLINE void GeGluLoop(const T* gate, const T* up, std::int64_t count, T* out) {
  constexpr std::int64_t kWidth = Lanes<T>::kWidth;
  for (std::int64_t i = 0; i < count; i += kWidth) {
    const Vector<T> g = Load(gate + i, count - i);
    Store(out + i, g * Gelu<Computed<T>>(g).sigmoid * Load(up + i, count - i), count - i);
  }
}

template <class T>
PLURAL_INLINE void GeGluBackwardLoop(const T* gate, const T* up, const T* dout, std::int64_t count, T* dgate,
                                     T* dup) {
  constexpr std::int64_t kWidth = Lanes<T>::kWidth;
  for (std::int64_t i = 0; i < count; i += kWidth) {
    const Vector<T> g = Load(gate + i, count - i);
    const Vector<T> d = Load(dout + i, count - i);
    const Gelu<Computed<T>> gelu(g);
    Store(dup + i, d * g * gelu.sigmoid, count - i);
    const Vector<T> slope =
        gelu.sigmoid * (g * (Computed<T>{1} - gelu.sigmoid) * gelu.slope * Computed<T>{2} + Computed<T>{1});
    Store(dgate + i, d * Load(up + i, count - i) * slope, count - i);
  }
}

template <class T>
PLURAL_INLINE void RotateLoop(const T* x, const Computed<T>* cos, const Computed<T>* sin, int direction,
                              std::int64_t rows, std::int64_t heads, std::int64_t half, T* out) {
  constexpr std::int64_t kWidth = Lanes<T>::kWidth;
  const auto sign = static_cast<Computed<T>>(direction);
  for (std::int64_t row = 0; row < rows; ++row) {
    for (std::int64_t head = 0; head < heads; ++head) {
      const std::int64_t at = (row * heads + head) * 2 * half;
      for (std::int64_t i = 0; i < half; i += kWidth) {
        const Vector<T> c = Load(cos + row * half + i, half - i);
        const Vector<T> s = Load(sin + row * half + i, half - i) * sign;
        const Vector<T> first = Load(x + at + i, half - i);
        const Vector<T> second = Load(x + at + half + i, half - i);
        Store(out + at + i, first * c - second * s, half - i);
        Store(out + at + half + i, second * c + first * s, half - i);
      }
    }
  }
}

template <class T>
PLURAL_INLINE void SoftmaxOfScoresLoop(T* scores, const ScoreTerms& terms, std::int64_t rows,
                                       std::int64_t keys) {
  constexpr std::int64_t kWidth = Lanes<T>::kWidth;
  constexpr T kLowest = -std::numeric_limits<T>::infinity();
  const auto scale = static_cast<T>(terms.scale), softcap = static_cast<T>(terms.softcap);
  for (std::int64_t row = 0; row < rows; ++row) {
    T* s = scores + row * keys;
    Vector<T> largest = Vector<T>{} + kLowest;
    for (std::int64_t i = 0; i < keys; i += kWidth) {
      const Vector<T> score = Load(s + i, keys - i);
      const Vector<T> v = softcap > 0 ? Tanh(score * (scale / softcap)) * softcap : score * scale;
      Store(s + i, v, keys - i);
      largest = Max(largest, keys - i < kWidth ? Load(s + i, keys - i, kLowest) : v);
    }
    T top = kLowest;
    for (std::int64_t l = 0; l < kWidth; ++l) top = largest[l] > top ? largest[l] : top;
    Vector<T> sums{};
    for (std::int64_t i = 0; i < keys; i += kWidth) {
      const Vector<T> e = Exp(Load(s + i, keys - i, kLowest) - top);
      Store(s + i, e, keys - i);
      sums += e;
    }
    const auto inverse = static_cast<T>(1.0 / Sum<T>(sums));
    for (std::int64_t i = 0; i < keys; i += kWidth) Store(s + i, Load(s + i, keys - i) * inverse, keys - i);
  }
}

}  // namespace

#define PLURAL_STORED_LOOPS(T, CLONES)                                                                       \
  CLONES void RmsNorm(const T* x, const T* branch, const Computed<T>* weight, double eps, std::int64_t rows, \
                      std::int64_t count, T* sum, T* norm, Computed<T>* rstd) {                              \
    RmsNormLoop(x, branch, weight, eps, rows, count, sum, norm, rstd);                                       \
  }                                                                                                          \
  CLONES void RmsNormBackward(const T* x, const Computed<T>* rstd, const Computed<T>* weight,                \
                              const T* dnorm, const T* dsum, std::int64_t rows, std::int64_t count, T* dx,   \
                              Computed<T>* dweight) {                                                        \
    RmsNormBackwardLoop(x, rstd, weight, dnorm, dsum, rows, count, dx, dweight);                             \
  }                                                                                                          \
  CLONES void SwiGlu(const T* gate, const T* up, std::int64_t count, T* out) {                               \
    SwiGluLoop(gate, up, count, out);                                                                        \
  }                                                                                                          \
  CLONES void SwiGluBackward(const T* gate, const T* up, const T* dout, std::int64_t count, T* dgate,        \
                             T* dup) {                                                                       \
    SwiGluBackwardLoop(gate, up, dout, count, dgate, dup);                                                   \
  }                                                                                                          \
  CLONES void GeGlu(const T* gate, const T* up, std::int64_t count, T* out) {                                \
    GeGluLoop(gate, up, count, out);                                                                         \
  }                                                                                                          \
  CLONES void GeGluBackward(const T* gate, const T* up, const T* dout, std::int64_t count, T* dgate,         \
                            T* dup) {                                                                        \
    GeGluBackwardLoop(gate, up, dout, count, dgate, dup);                                                    \
  }                                                                                                          \
  CLONES void Rotate(const T* x, const Computed<T>* cos, const Computed<T>* sin, int direction,              \
                     std::int64_t rows, std::int64_t heads, std::int64_t half, T* out) {                     \
    RotateLoop(x, cos, sin, direction, rows, heads, half, out);                                              \
  }

#define PLURAL_COMPUTED_LOOPS(T, CLONES)                                                                  \
  CLONES RowStatistics StatisticsOfRow(const T* z, std::int64_t count, double temperature) {              \
    return StatisticsOfRowLoop<true>(z, count, temperature);                                              \
  }                                                                                                       \
  CLONES double LseOfRow(const T* z, std::int64_t count, double temperature) {                            \
    return StatisticsOfRowLoop<false>(z, count, temperature).lse;                                         \
  }                                                                                                       \
  CLONES void RowGradient(T* z, std::int64_t count, const RowGradientTerms& terms) {                      \
    RowGradientLoop(z, count, terms);                                                                     \
  }                                                                                                       \
  CLONES void SoftCap(T* z, std::int64_t count, double cap) { SoftCapLoop(z, count, cap); }               \
  CLONES void SoftmaxOfScores(T* scores, const ScoreTerms& terms, std::int64_t rows, std::int64_t keys) { \
    SoftmaxOfScoresLoop(scores, terms, rows, keys);                                                       \
  }

// fp64 is for tests and exactness, not for speed.
PLURAL_STORED_LOOPS(float, PLURAL_CLONES)
PLURAL_STORED_LOOPS(c10::BFloat16, PLURAL_CLONES)
PLURAL_STORED_LOOPS(double, )
PLURAL_COMPUTED_LOOPS(float, PLURAL_CLONES)
PLURAL_COMPUTED_LOOPS(double, )

}  // namespace plural::trainer::host
