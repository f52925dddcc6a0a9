// A test of attention over the cache of keys and values on this machine's own device, before answers trust
// it.
//
// Owns: small inputs, what may differ. Does not own: the kernels (generate/pool_attention.h), the test of a
// tree's attention (device_check.h). Thread rule: one thread.
#pragma once

#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include "trainer/model/config.h"
#include "trainer/ops/cuda_kernels.h"

namespace plural::trainer {

// The largest difference between attention over a cache on `device` in `dtype` and the same in fp64 on the
// CPU, relative to the largest value: of paths with one part and with several, without a window and with one,
// for the head counts, head dimension and score terms of `config`.
double CacheAttentionError(const ModelConfig& config, at::ScalarType dtype, at::Device device,
                           const CudaKernels* kernels);

// Errors: kWrongResources where it is larger than rounding explains, or not a number.
void CheckCacheAttention(const ModelConfig& config, at::ScalarType dtype, at::Device device,
                         const CudaKernels* kernels);

}  // namespace plural::trainer
