#include "trainer/run/cache_check.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/randn.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <vector>

#include "trainer/base/error.h"
#include "trainer/generate/pool_attention.h"
#include "trainer/ops/packed_upload.h"

namespace plural::trainer {
namespace {

constexpr std::int64_t kSharedTokens = 40, kWindowOfPaths = 33;

// Paths that begin alike, in slots that lie apart.
std::vector<CachePath> SmallPaths() {
  std::vector<CachePath> paths;
  CacheSlot next = kSharedTokens;
  for (const std::int64_t tokens : {70, 1, 300}) {
    CachePath& path = paths.emplace_back();
    for (std::int64_t t = 0; t < tokens; ++t)
      path.push_back(t < kSharedTokens && t + 1 < tokens ? static_cast<CacheSlot>(t) : next++);
  }
  return paths;
}

at::Tensor AttentionOfPaths(const ModelConfig& config, const std::vector<CachePath>& paths,
                            const std::vector<at::Tensor>& inputs, at::ScalarType dtype, at::Device device,
                            const CudaKernels* kernels) {
  std::vector<at::Tensor> in;
  for (const at::Tensor& input : inputs) in.push_back(input.to(device, dtype, /*non_blocking=*/false, true));
  const CachePool pool{{in[3]}, {in[4]}};
  PackedUpload upload;
  PoolAttention attention(config, pool, paths, kernels, upload);
  upload.Send(device);
  return attention(0, in[0], in[1], in[2]).to(at::kCPU, at::kDouble);
}

}  // namespace

double CacheAttentionError(const ModelConfig& config, at::ScalarType dtype, at::Device device,
                           const CudaKernels* kernels) {
  const std::vector<CachePath> paths = SmallPaths();
  const auto generator = at::detail::createCPUGenerator(1);
  const auto draw = [&](std::int64_t rows, std::int64_t heads) {
    return at::randn({rows, heads, config.head_dim}, generator, at::kFloat).to(dtype);
  };
  const auto rows = static_cast<std::int64_t>(paths.size()), slots = std::int64_t{paths.back().back()} + 1;
  const std::int64_t heads = config.num_attention_heads, shared = config.num_key_value_heads;
  const std::vector<at::Tensor> inputs = {draw(rows, heads), draw(rows, shared), draw(rows, shared),
                                          draw(slots, shared), draw(slots, shared)};
  ModelConfig one_layer = config;
  one_layer.num_hidden_layers = 1;
  one_layer.sliding_layers.clear();
  double error = 0.0;
  for (const std::int64_t window : {std::int64_t{0}, kWindowOfPaths}) {
    one_layer.sliding_window = window;
    const at::Tensor found = AttentionOfPaths(one_layer, paths, inputs, dtype, device, kernels);
    const at::Tensor wanted = AttentionOfPaths(one_layer, paths, inputs, at::kDouble, at::kCPU, nullptr);
    const double apart = (found - wanted).abs().max().item<double>();
    if (!std::isfinite(apart)) return apart;
    error = std::max(error, apart / wanted.abs().max().item<double>());
  }
  return error;
}

void CheckCacheAttention(const ModelConfig& config, at::ScalarType dtype, at::Device device,
                         const CudaKernels* kernels) {
  // As for a tree's attention: sums of some hundred products with 24 bits; with 8 bits, rounded between, too.
  const double allowed = dtype == at::kDouble ? 1e-12 : dtype == at::kFloat ? 1e-4 : 3e-2;
  const double error = CacheAttentionError(config, dtype, device, kernels);
  if (error <= allowed) return;
  char text[300];
  std::snprintf(
      text, sizeof text,
      "attention over the cache on %s differs from the CPU's in fp64 by %.2g of the largest value, at "
      "most %.2g is rounding; set PLURAL_WITHOUT_KERNELS=paged, update the driver, or compute on the "
      "CPU (--device cpu)",
      device.str().c_str(), error, allowed);
  throw ExitError(ExitCode::kWrongResources, text);
}

}  // namespace plural::trainer
