// Attention of one new token per path on a GPU, by the kernels of the module
// (trainer/kernels/cuda/path_attention.cu).
//
// Owns: what the kernels are told. Does not own: the pool and its paths (generate/key_value_cache.h), what
// the kernels compute. Thread rule: one thread.
#pragma once

#include <ATen/core/TensorBody.h>

#include <cstdint>

#include "trainer/kernels/host_loops.h"
#include "trainer/ops/cuda_kernels.h"

namespace plural::trainer {

// Whether a kernel serves: not without the module, in fp64, or for a head dimension that is no multiple of 8
// or above 256.
bool PathAttentionServesOnGpu(const CudaKernels* kernels, at::ScalarType dtype, std::int64_t head_dim);

// Paths of slots, on the device of the pool: that of row r is slot[first[r]] up to slot[first[r + 1] - 1].
struct PathsOnDevice {
  const std::int32_t* first = nullptr;
  const std::int32_t* slot = nullptr;
  std::int64_t longest = 0;  // tokens
};

// q_NHD, k_NGD and v_NGD of each path's newest token, which go into the slot at its end of the pools k_SGD
// and v_SGD -> [N, H * D]. `window` 0: none. Precondition: PathAttentionServesOnGpu.
at::Tensor PathAttentionOnGpu(const at::Tensor& q_NHD, const at::Tensor& k_NGD, const at::Tensor& v_NGD,
                              const at::Tensor& k_SGD, const at::Tensor& v_SGD, const PathsOnDevice& paths,
                              const host::ScoreTerms& terms, std::int64_t window, const CudaKernels& kernels);

}  // namespace plural::trainer
