// Vectors: the building blocks of the host loops.
//
// Owns: a vector of 64 bytes (one AVX-512 register, two or four of smaller machines), its loads,
// stores and few functions, the attributes that compile a loop once per instruction set. Does not
// own: loops. For inclusion by host loops' source files only. Thread rule: pure functions.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "trainer/kernels/dtypes.h"

// Vectors wider than the build's base instruction set are never passed to a function that is not inlined.
#pragma GCC diagnostic ignored "-Wpsabi"

// Compiles a function once per instruction set; the version is chosen when the program starts. Not
// for clang (14), which makes no versions for these levels; it compiles the sanitized build, whose
// start-up would come after that choice.
#if defined(__x86_64__) && !defined(__clang__)
#define PLURAL_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define PLURAL_CLONES
#endif
#define PLURAL_INLINE __attribute__((always_inline)) inline
// For a lambda within such a loop: if called, it would be compiled for the oldest processor.
#define PLURAL_INLINE_LAMBDA __attribute__((always_inline))

// The same for functions whose versions differ: one attribute per version.
#if defined(__x86_64__) && !defined(__clang__)
#define PLURAL_VERSIONS
#define PLURAL_AVX512 __attribute__((target("arch=x86-64-v4")))
#define PLURAL_AVX2 __attribute__((target("arch=x86-64-v3")))
#define PLURAL_BASE __attribute__((target("default")))
#endif

namespace plural::trainer::host {

template <class T>
struct Lanes {
  using Vector __attribute__((vector_size(64))) = T;
  static constexpr std::int64_t kWidth = 64 / sizeof(T);
};
// bf16 is loaded into, and stored from, vectors of the type in which it is computed.
template <>
struct Lanes<c10::BFloat16> : Lanes<float> {};
template <class T>
using Vector = typename Lanes<T>::Vector;
using Ints = std::int32_t __attribute__((vector_size(64)));
using Words = std::uint32_t __attribute__((vector_size(64)));
using HalfWords = std::uint16_t __attribute__((vector_size(32)));

// Reads `count` values (a whole vector or the end of a row); the other lanes hold `fill`.
template <class T>
PLURAL_INLINE Vector<T> Load(const T* from, std::int64_t count, T fill = 0) {
  Vector<T> v;
  if (count >= Lanes<T>::kWidth) {
    std::memcpy(&v, from, sizeof v);
  } else {
    v = Vector<T>{} + fill;
    std::memcpy(&v, from, static_cast<std::size_t>(count) * sizeof(T));
  }
  return v;
}

template <class T>
PLURAL_INLINE void Store(T* to, const Vector<T>& v, std::int64_t count) {
  if (count >= Lanes<T>::kWidth) {
    std::memcpy(to, &v, sizeof v);
  } else {
    std::memcpy(to, &v, static_cast<std::size_t>(count) * sizeof(T));
  }
}

// bf16 is the upper half of an fp32. `fill` must be a bf16 value.
PLURAL_INLINE Vector<float> Load(const c10::BFloat16* from, std::int64_t count, float fill = 0) {
  HalfWords half;
  if (count >= Lanes<float>::kWidth) {
    std::memcpy(&half, from, sizeof half);
  } else {
    std::uint32_t bits;
    std::memcpy(&bits, &fill, sizeof bits);
    half = HalfWords{} + static_cast<std::uint16_t>(bits >> 16);
    std::memcpy(&half, from, static_cast<std::size_t>(count) * sizeof(c10::BFloat16));
  }
  const Words words = __builtin_convertvector(half, Words) << 16;
  Vector<float> v;
  std::memcpy(&v, &words, sizeof v);
  return v;
}

// Rounds each value to the nearest bf16, ties to even, in the lower half of a word; NaN stays.
PLURAL_INLINE Words RoundToHalf(const Vector<float>& v) {
  Words words;
  std::memcpy(&words, &v, sizeof words);
  return (v == v ? words + (0x7fffU + (words >> 16 & 1U)) : Words{} + 0x7fc00000U) >> 16;
}

PLURAL_INLINE void StoreHalf(c10::BFloat16* to, const Words& rounded, std::int64_t count) {
  const HalfWords half = __builtin_convertvector(rounded, HalfWords);
  if (count >= Lanes<float>::kWidth) {
    std::memcpy(to, &half, sizeof half);
  } else {
    std::memcpy(to, &half, static_cast<std::size_t>(count) * sizeof(c10::BFloat16));
  }
}
PLURAL_INLINE void Store(c10::BFloat16* to, const Vector<float>& v, std::int64_t count) {
  StoreHalf(to, RoundToHalf(v), count);
}

// Products of pairs of bf16: a word holds a pair of values, and a lane of the fp32 sum grows by the
// products of both.
constexpr std::int64_t kPairs = 32;  // values in a vector of pairs

PLURAL_INLINE Words LoadPairs(const c10::BFloat16* from, std::int64_t count) {
  Words pairs;
  if (count >= kPairs) {
    std::memcpy(&pairs, from, sizeof pairs);
  } else {
    pairs = Words{};
    std::memcpy(&pairs, from, static_cast<std::size_t>(count) * sizeof(c10::BFloat16));
  }
  return pairs;
}

PLURAL_INLINE Vector<float> AsFloats(const Words& words) {
  Vector<float> v;
  std::memcpy(&v, &words, sizeof v);
  return v;
}

struct PairProducts {
  static PLURAL_INLINE void Add(Vector<float>& sum, const Words& a, const Words& b) {
    sum += AsFloats(a << 16) * AsFloats(b << 16);
    sum += AsFloats(a & 0xffff0000U) * AsFloats(b & 0xffff0000U);
  }
};

#ifdef PLURAL_VERSIONS
// The processor's own instruction, as assembly: the templates are compiled for all processors.
struct NativePairProducts {
  static PLURAL_INLINE void Add(Vector<float>& sum, const Words& a, const Words& b) {
    asm("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
  }
};
inline bool HasNativePairProducts() {
  static const bool has = __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vl");
  return has;
}
#endif

// Sum of the lanes in fp64.
template <class T>
PLURAL_INLINE double Sum(const Vector<T>& v) {
  double sum = 0.0;
  for (std::int64_t l = 0; l < Lanes<T>::kWidth; ++l) sum += static_cast<double>(v[l]);
  return sum;
}

template <class T>
using Quarter __attribute__((vector_size(16))) = T;

// Sum of the lanes in their own type, always in the same order: halves added, then their halves.
template <class T>
PLURAL_INLINE Quarter<T> SumQuarters(const Vector<T>& v) {
  using Half __attribute__((vector_size(32))) = T;
  Half low, high;
  std::memcpy(&low, &v, sizeof low);
  std::memcpy(&high, reinterpret_cast<const char*>(&v) + sizeof low, sizeof high);
  low += high;
  Quarter<T> first, second;
  std::memcpy(&first, &low, sizeof first);
  std::memcpy(&second, reinterpret_cast<const char*>(&low) + sizeof first, sizeof second);
  return first + second;
}

PLURAL_INLINE float SumLanes(const Quarter<float>& v) { return (v[0] + v[2]) + (v[1] + v[3]); }
PLURAL_INLINE double SumLanes(const Quarter<double>& v) { return v[0] + v[1]; }

template <class V>
PLURAL_INLINE V Max(const V& a, const V& b) {
  return a > b ? a : b;
}

// exp within 2 units in the last place: 2^n times a polynomial of the remainder (Cephes' coefficients);
// exactly 0 below -87.3, infinite above 88.7, NaN stays.
PLURAL_INLINE Vector<float> Exp(Vector<float> x) {
  const Vector<float> zero{};
  const Vector<float> input = x;
  x = x < -87.33654F ? zero - 87.33654F : x;
  x = x > 89.0F ? zero + 89.0F : x;
  const Vector<float> n = (x * 1.44269504F + 12582912.0F) - 12582912.0F;  // rounds to an integer
  const Vector<float> r = (x - n * 0.693359375F) + n * 2.12194440e-4F;
  Vector<float> y = zero + 1.9875691500e-4F;
  y = y * r + 1.3981999507e-3F;
  y = y * r + 8.3334519073e-3F;
  y = y * r + 4.1665795894e-2F;
  y = y * r + 1.6666665459e-1F;
  y = y * r + 5.0000001201e-1F;
  y = y * r * r + r + 1.0F;
  const Ints power = (__builtin_convertvector(n, Ints) + 127) << 23;
  Vector<float> scale;
  std::memcpy(&scale, &power, sizeof scale);
  return input < -87.33654F ? zero : y * scale;
}

PLURAL_INLINE Vector<double> Exp(Vector<double> x) {
  for (std::int64_t l = 0; l < Lanes<double>::kWidth; ++l) x[l] = std::exp(x[l]);
  return x;
}

// tanh to rounding: near 0, where 1 - exp(-2x) would lose digits, x plus a rational function (Cephes'
// coefficients).
template <class V>
PLURAL_INLINE V Tanh(const V& x) {
  using T = std::remove_cvref_t<decltype(x[0])>;
  const V size = x < 0 ? -x : x;
  const V e = Exp(size * T{-2});
  const V far = (T{1} - e) / (T{1} + e);
  const V s = x * x;
  const V above =
      (s * T(-9.64399179425052238628e-1) - T(9.92877231001918586564e1)) * s - T(1.61468768441708447952e3);
  const V below =
      ((s + T(1.12811678491632931402e2)) * s + T(2.23548839060100448583e3)) * s + T(4.84406305325125486048e3);
  const V near = x + x * s * (above / below);
  return size < T(0.625) ? near : x < 0 ? -far : far;
}

}  // namespace plural::trainer::host
