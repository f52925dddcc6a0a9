// Operations that are rounded one by one, for results that have the CPU's bits: nvcc would fuse a product
// with the sum behind it, and not where the CPU's loops are fused.
//
// Owns: the words. Does not own: the formulas made of them (such as adamw.h). Thread rule: pure functions.
#pragma once

#include "trainer/kernels/cuda/numbers.h"

namespace plural::trainer::gpu {

#ifdef __CUDACC__
PLURAL_DEVICE float Product(float x, float y) { return __fmul_rn(x, y); }
PLURAL_DEVICE double Product(double x, double y) { return __dmul_rn(x, y); }
PLURAL_DEVICE float Quotient(float x, float y) { return __fdiv_rn(x, y); }
PLURAL_DEVICE double Quotient(double x, double y) { return __ddiv_rn(x, y); }
PLURAL_DEVICE float Plus(float x, float y) { return __fadd_rn(x, y); }
PLURAL_DEVICE float FusedMultiplyAdd(float x, float y, float z) { return __fmaf_rn(x, y, z); }
PLURAL_DEVICE float Root(float x) { return __fsqrt_rn(x); }
PLURAL_DEVICE double Root(double x) { return __dsqrt_rn(x); }
#else
template <class T>
T Product(T x, T y) {
  return x * y;
}
template <class T>
T Quotient(T x, T y) {
  return x / y;
}
inline float Plus(float x, float y) { return x + y; }
inline float FusedMultiplyAdd(float x, float y, float z) { return std::fma(x, y, z); }
template <class T>
T Root(T x) {
  return std::sqrt(x);
}
#endif

}  // namespace plural::trainer::gpu
