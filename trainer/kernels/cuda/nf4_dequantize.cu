// NF4 to fp32 or bf16 on a GPU: one pass that reads 4.1 bits and writes 2 or 4 bytes per value.
//
// Each thread takes eight packed bytes, that is 16 values of one block: it decodes their absmax,
// loads once and stores two or four times 16 bytes. The 16 values of the type are in shared memory,
// where threads that read different ones have no bank conflict: a warp reads at most 16 words.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "trainer/kernels/cuda/module.h"

namespace plural::trainer {
namespace {

constexpr int kThreads = 256;
constexpr int kValues = 16;  // per thread
constexpr int kBlock = 64;   // values that share an absmax
constexpr int kNestedBlock = 256;

struct Table {
  float values[16];
};

// In two rounded steps, as on the CPU: no fused multiply-add.
__device__ float Absmax(const Nf4Arguments& a, std::int64_t block) {
  if (a.absmax != nullptr) return a.absmax[block];
  return __fadd_rn(__fmul_rn(a.map[a.codes[block]], a.nested[block / kNestedBlock]), a.offset);
}

__device__ void Store(float* out, const float* v) {
  auto* to = reinterpret_cast<float4*>(out);
  for (int i = 0; i < kValues / 4; ++i)
    to[i] = make_float4(v[4 * i], v[4 * i + 1], v[4 * i + 2], v[4 * i + 3]);
}
__device__ void Store(__nv_bfloat16* out, const float* v) {
  __nv_bfloat162 pairs[kValues / 2];
  for (int i = 0; i < kValues / 2; ++i) pairs[i] = __floats2bfloat162_rn(v[2 * i], v[2 * i + 1]);
  auto* to = reinterpret_cast<uint4*>(out);
  to[0] = *reinterpret_cast<const uint4*>(pairs);
  to[1] = *reinterpret_cast<const uint4*>(pairs + 4);
}
__device__ void Store(float* out, float v) { *out = v; }
__device__ void Store(__nv_bfloat16* out, float v) { *out = __float2bfloat16_rn(v); }

template <class T>
__global__ void __launch_bounds__(kThreads) Dequantize(Nf4Arguments a, Table table, T* out) {
  __shared__ float values[16];
  if (threadIdx.x < 16) values[threadIdx.x] = table.values[threadIdx.x];
  __syncthreads();
  const std::int64_t first = (static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kValues;
  if (first >= a.count) return;
  const float absmax = Absmax(a, first / kBlock);
  if (first + kValues <= a.count) {
    const uint2 packed = *reinterpret_cast<const uint2*>(a.packed + first / 2);
    float v[kValues];
#pragma unroll
    for (int i = 0; i < kValues; ++i) {
      const unsigned word = i < 8 ? packed.x : packed.y;
      const int shift = (i % 8) / 2 * 8 + (i % 2 == 0 ? 4 : 0);  // the first of two in the high bits
      v[i] = values[(word >> shift) & 15U] * absmax;
    }
    Store(out + first, v);
    return;
  }
  for (std::int64_t i = first; i < a.count; ++i) {
    const unsigned pair = a.packed[i / 2];
    Store(out + i, values[i % 2 == 0 ? pair >> 4 : pair & 15U] * absmax);
  }
}

template <class T>
int Start(const Nf4Arguments& a, cudaStream_t stream) {
  Table table;
  for (int i = 0; i < 16; ++i) table.values[i] = a.values[i];
  const std::int64_t threads = (a.count + kValues - 1) / kValues;
  const auto blocks = static_cast<unsigned>((threads + kThreads - 1) / kThreads);
  Dequantize<T><<<blocks, kThreads, 0, stream>>>(a, table, static_cast<T*>(a.out));
  return cudaGetLastError();
}

}  // namespace

extern "C" int plural_dequantize_nf4(const Nf4Arguments& arguments, void* stream) {
  auto* on = static_cast<cudaStream_t>(stream);
  return arguments.type == KernelType::kFp32 ? Start<float>(arguments, on)
                                             : Start<__nv_bfloat16>(arguments, on);
}

}  // namespace plural::trainer
