// A block of threads on a GPU, as the kernels' source sees it (fragments.h). For nvcc only.
//
// Owns: the instructions. Does not own: what they compute with. Thread rule: all threads of a block.
#pragma once

#include <cuda_runtime.h>

#include "trainer/kernels/cuda/fragments.h"

namespace plural::trainer::gpu {

constexpr unsigned kAllLanes = 0xFFFFFFFFU;

template <class Registers>
class DeviceBlock {
 public:
  __device__ DeviceBlock(Registers& registers, char* shared) : registers_(registers), shared_(shared) {}

  template <class F>
  __device__ __forceinline__ void Each(const F& f) {
    f(static_cast<int>(threadIdx.x), registers_);
  }
  __device__ __forceinline__ void Sync() { __syncthreads(); }

  template <class T>
  __device__ __forceinline__ T Load(int, int offset) const {
    return *reinterpret_cast<const T*>(shared_ + offset);
  }
  template <class T>
  __device__ __forceinline__ void Store(int, int offset, const T& value) {
    *reinterpret_cast<T*>(shared_ + offset) = value;
  }

  // `from` null: zeros.
  __device__ __forceinline__ void CopyAsync(int, int offset, const void* from) {
#if __CUDA_ARCH__ >= 800
    if (from == nullptr) {
      *reinterpret_cast<SixteenBytes*>(shared_ + offset) = SixteenBytes{};
    } else {
      const auto source = __cvta_generic_to_global(from);
      asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(Address(offset)), "l"(source)
                   : "memory");
    }
#else
    *reinterpret_cast<SixteenBytes*>(shared_ + offset) =
        from == nullptr ? SixteenBytes{} : *static_cast<const SixteenBytes*>(from);
#endif
  }
  __device__ __forceinline__ void WaitCopies() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_all;" ::: "memory");
#endif
  }

  template <bool kTransposed, class F>
  __device__ __forceinline__ void Matrices(const F& f) {
    const MatrixLoad load = f(static_cast<int>(threadIdx.x), registers_);
    if constexpr (kTransposed) {
      asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                   : "=r"(load.to[0]), "=r"(load.to[1]), "=r"(load.to[2]), "=r"(load.to[3])
                   : "r"(Address(load.offset))
                   : "memory");
    } else {
      asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                   : "=r"(load.to[0]), "=r"(load.to[1]), "=r"(load.to[2]), "=r"(load.to[3])
                   : "r"(Address(load.offset))
                   : "memory");
    }
  }

  template <class E, class F>
  __device__ __forceinline__ void Multiply(const F& f) {
    const Operands<E> o = f(registers_);
    if constexpr (sizeof(E) == 4) {
      MultiplyByLanes(
          static_cast<int>(threadIdx.x) % 32, o.c, [&](int i, int lane) { return FromLane(o.a[i], lane); },
          [&](int i, int lane) { return FromLane(o.b[i], lane); });
    } else {
#if __CUDA_ARCH__ >= 800
      asm volatile(
          "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
          "{%8, %9}, {%0, %1, %2, %3};"
          : "+f"(o.c[0]), "+f"(o.c[1]), "+f"(o.c[2]), "+f"(o.c[3])
          : "r"(o.a[0]), "r"(o.a[1]), "r"(o.a[2]), "r"(o.a[3]), "r"(o.b[0]), "r"(o.b[1]));
#endif
    }
  }

  template <class F>
  __device__ __forceinline__ void QuadMax(const F& f) {
    float& value = f(registers_);
    value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, 1));
    value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, 2));
  }
  template <class F>
  __device__ __forceinline__ void WarpSum(const F& f) {
    float& value = f(registers_);
#pragma unroll
    for (int apart = 16; apart > 0; apart /= 2) value += __shfl_xor_sync(kAllLanes, value, apart);
  }
  template <class F>
  __device__ __forceinline__ void QuadSum(const F& f) {
    float& value = f(registers_);
    value += __shfl_xor_sync(kAllLanes, value, 1);
    value += __shfl_xor_sync(kAllLanes, value, 2);
  }

 private:
  __device__ __forceinline__ unsigned Address(int offset) const {
    return static_cast<unsigned>(__cvta_generic_to_shared(shared_ + offset));
  }
  static __device__ __forceinline__ FloatPair FromLane(const FloatPair& pair, int lane) {
    return {__shfl_sync(kAllLanes, pair.first, lane), __shfl_sync(kAllLanes, pair.second, lane)};
  }

  Registers& registers_;
  char* shared_;
};

}  // namespace plural::trainer::gpu
