#include "trainer/run/cache_check.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "tests/unit/support/emulated_kernels.h"
#include "trainer/base/error.h"

namespace plural::trainer {
namespace {

ModelConfig SharingHeads() {
  ModelConfig config;
  config.num_attention_heads = 6;
  config.num_key_value_heads = 2;
  config.head_dim = 40;
  return config;
}

TEST(CacheAttentionTest, KernelsAndLoopsPass) {
  const CudaKernels kernels = testing::EmulatedKernels();
  for (const double softcap : {0.0, 5.0}) {
    ModelConfig config = SharingHeads();
    config.attn_logit_softcapping = softcap;
    for (const CudaKernels* by : {static_cast<const CudaKernels*>(nullptr), &kernels}) {
      for (const at::ScalarType dtype : {at::kDouble, at::kFloat, at::kBFloat16})
        EXPECT_NO_THROW(CheckCacheAttention(config, dtype, at::kCPU, by)) << dtype << " " << softcap;
      EXPECT_GT(CacheAttentionError(config, at::kFloat, at::kCPU, by), 1e-9);  // what is measured is real
    }
  }
}

TEST(CacheAttentionTest, AKernelThatComputesNothingIsRefused) {
  CudaKernels kernels;
  kernels.path_attention = [](const PathAttentionArguments& a, void*) {
    std::fill_n(static_cast<float*>(a.out), a.rows * a.heads * a.dim, 0.0F);
    return 0;
  };
  try {
    CheckCacheAttention(SharingHeads(), at::kFloat, at::kCPU, &kernels);
    FAIL();
  } catch (const ExitError& error) {
    EXPECT_EQ(error.Code(), ExitCode::kWrongResources);
    EXPECT_NE(std::string(error.what()).find("PLURAL_WITHOUT_KERNELS=paged"), std::string::npos);
  }
}

}  // namespace
}  // namespace plural::trainer
