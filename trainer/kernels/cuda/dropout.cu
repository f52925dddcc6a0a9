// Dropout on a GPU: each value is read once and written once, its factor is drawn in between. Of several
// places at once: drop_sites.h.
//
// A block takes a stretch of one row, so that the row's stream is made once for its values.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>

#include "trainer/kernels/cuda/drop_sites.h"
#include "trainer/kernels/cuda/module.h"
#include "trainer/kernels/cuda/rows_launch.h"
#include "trainer/kernels/dropout_draws.h"

namespace plural::trainer {
namespace {

constexpr int kThreads = 256;
constexpr std::int64_t kStretch = 8 * kThreads;  // values of a block
constexpr std::int64_t kMostRows = 65535;  // of a grid's second dimension; a block takes further rows, too

// bf16 is multiplied in fp32, since 1 / 0.9 is not a bf16 value.
__device__ void Multiply(const float& x, float factor, float* out) { *out = x * factor; }
__device__ void Multiply(const double& x, double factor, double* out) { *out = x * factor; }
__device__ void Multiply(const __nv_bfloat16& x, float factor, __nv_bfloat16* out) {
  *out = __float2bfloat16_rn(__bfloat162float(x) * factor);
}

template <class T, class Factor>
__global__ void __launch_bounds__(kThreads) Drop(DropoutArguments a, Factor kept) {
  __shared__ std::uint64_t stream;
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * kStretch;
  const std::int64_t end = first + kStretch < a.features ? first + kStretch : a.features;
  for (std::int64_t row = blockIdx.y; row < a.rows; row += gridDim.y) {
    __syncthreads();  // all threads have read the last row's
    if (threadIdx.x == 0) stream = host::DropoutStream(static_cast<std::uint64_t>(a.row_key[row]), a.site);
    __syncthreads();
    const auto* x = static_cast<const T*>(a.x) + row * a.features;
    auto* out = static_cast<T*>(a.out) + row * a.features;
    for (std::int64_t i = first + threadIdx.x; i < end; i += kThreads) {
      Multiply(x[i], host::DropoutFactor(stream, static_cast<std::uint64_t>(i), a.threshold, kept), out + i);
    }
  }
}

template <class T, class Factor>
int Start(const DropoutArguments& a, cudaStream_t stream) {
  if (a.rows == 0 || a.features == 0) return cudaSuccess;
  const dim3 blocks(static_cast<unsigned>((a.features + kStretch - 1) / kStretch),
                    static_cast<unsigned>(std::min(a.rows, kMostRows)));
  Drop<T, Factor><<<blocks, kThreads, 0, stream>>>(a, static_cast<Factor>(a.kept));
  return cudaGetLastError();
}

}  // namespace

extern "C" int plural_dropout(const DropoutArguments& arguments, void* stream) {
  auto* on = static_cast<cudaStream_t>(stream);
  switch (arguments.type) {
    case KernelType::kFp32:
      return Start<float, float>(arguments, on);
    case KernelType::kBf16:
      return Start<__nv_bfloat16, float>(arguments, on);
    case KernelType::kFp64:
      return Start<double, double>(arguments, on);
  }
  return cudaErrorInvalidValue;
}

extern "C" int plural_drop_sites(const DropSitesArguments& arguments, void* stream) {
  return gpu::StartDropSites(arguments, gpu::LaunchRows{static_cast<cudaStream_t>(stream)});
}

}  // namespace plural::trainer
