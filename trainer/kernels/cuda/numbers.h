// Numbers of the kernels: bf16, pairs of values as tensor cores take them, 16 bytes at a time.
//
// Owns: conversions and their rounding, the words by which one source is compiled for GPUs by nvcc and for
// the host by any compiler (PLURAL_DEVICE, PLURAL_UNROLL). Does not own: what is computed. Thread rule:
// values.
#pragma once

#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#include <cuda_bf16.h>
#define PLURAL_DEVICE __device__ __forceinline__
#define PLURAL_UNROLL _Pragma("unroll")
#define PLURAL_ROLLED _Pragma("unroll 1")
#else
#include <cmath>
#define PLURAL_DEVICE inline
#define PLURAL_UNROLL
#define PLURAL_ROLLED
#endif

namespace plural::trainer::gpu {

struct Bf16 {
  std::uint16_t bits;
};

PLURAL_DEVICE std::uint32_t BitsOf(float x) {
#ifdef __CUDACC__
  return __float_as_uint(x);
#else
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
#endif
}
PLURAL_DEVICE float FloatOf(std::uint32_t bits) {
#ifdef __CUDACC__
  return __uint_as_float(bits);
#else
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
#endif
}

PLURAL_DEVICE float ToFloat(float x) { return x; }
PLURAL_DEVICE float ToFloat(Bf16 x) { return FloatOf(static_cast<std::uint32_t>(x.bits) << 16); }

PLURAL_DEVICE void Round(float x, float* out) { *out = x; }
PLURAL_DEVICE void Round(float x, Bf16* out) {  // to nearest, ties to even
#ifdef __CUDACC__
  out->bits = __bfloat16_as_ushort(__float2bfloat16_rn(x));
#else
  const std::uint32_t bits = BitsOf(x);
  out->bits = static_cast<std::uint16_t>(x != x ? 0x7FFF : (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
#endif
}

// Two neighbouring values, as one register where they are bf16.
struct FloatPair {
  float first, second;
};
template <class E>
struct PairOfValues;
template <>
struct PairOfValues<Bf16> {
  using Type = std::uint32_t;  // the first in the low bits
};
template <>
struct PairOfValues<float> {
  using Type = FloatPair;
};
template <class E>
using Pair = typename PairOfValues<E>::Type;

PLURAL_DEVICE void Join(float first, float second, FloatPair* out) { *out = {first, second}; }
PLURAL_DEVICE void Join(float first, float second, std::uint32_t* out) {
#ifdef __CUDACC__
  const __nv_bfloat162 both = __floats2bfloat162_rn(first, second);
  *out = static_cast<std::uint32_t>(__bfloat16_as_ushort(both.x)) |
         (static_cast<std::uint32_t>(__bfloat16_as_ushort(both.y)) << 16);
#else
  Bf16 low, high;
  Round(first, &low);
  Round(second, &high);
  *out = low.bits | (static_cast<std::uint32_t>(high.bits) << 16);
#endif
}
PLURAL_DEVICE FloatPair Split(const FloatPair& pair) { return pair; }
PLURAL_DEVICE FloatPair Split(std::uint32_t pair) {
  return {FloatOf(pair << 16), FloatOf(pair & 0xFFFF0000U)};
}

// The widest load of a thread. `at` is aligned to its size on GPUs.
struct alignas(16) SixteenBytes {
  std::uint32_t words[4];
};
PLURAL_DEVICE SixteenBytes LoadSixteen(const void* at) {
#ifdef __CUDACC__
  return *static_cast<const SixteenBytes*>(at);
#else
  SixteenBytes value;
  std::memcpy(&value, at, sizeof value);
  return value;
#endif
}
PLURAL_DEVICE void StoreSixteen(const SixteenBytes& value, void* at) {
#ifdef __CUDACC__
  *static_cast<SixteenBytes*>(at) = value;
#else
  std::memcpy(at, &value, sizeof value);
#endif
}
template <class T>
PLURAL_DEVICE void StoreValue(const T& value, void* at) {
#ifdef __CUDACC__
  *static_cast<T*>(at) = value;
#else
  std::memcpy(at, &value, sizeof value);
#endif
}

PLURAL_DEVICE float Exp2(float x) {
#ifdef __CUDACC__
  return exp2f(x);
#else
  return std::exp2(x);
#endif
}
PLURAL_DEVICE float Log2(float x) {
#ifdef __CUDACC__
  return log2f(x);
#else
  return std::log2(x);
#endif
}
PLURAL_DEVICE double Log(double x) {
#ifdef __CUDACC__
  return log(x);
#else
  return std::log(x);
#endif
}
PLURAL_DEVICE double Exponential(double x) {
#ifdef __CUDACC__
  return exp(x);
#else
  return std::exp(x);
#endif
}
PLURAL_DEVICE double LogOnePlus(double x) {
#ifdef __CUDACC__
  return log1p(x);
#else
  return std::log1p(x);
#endif
}
PLURAL_DEVICE float InverseRoot(float x) {
#ifdef __CUDACC__
  return 1.0F / sqrtf(x);
#else
  return 1.0F / std::sqrt(x);
#endif
}
PLURAL_DEVICE float Tanh(float x) {
#ifdef __CUDACC__
  return tanhf(x);
#else
  return std::tanh(x);
#endif
}

constexpr float kLog2E = 1.4426950408889634F, kLn2 = 0.69314718055994531F;

PLURAL_DEVICE float MinusInfinity() { return FloatOf(0xFF800000U); }

}  // namespace plural::trainer::gpu
