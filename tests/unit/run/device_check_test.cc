#include "trainer/run/device_check.h"

#include <gtest/gtest.h>

namespace plural::trainer {
namespace {

ModelConfig Shape() {
  ModelConfig config;
  config.num_attention_heads = 6;
  config.num_key_value_heads = 2;
  config.head_dim = 40;
  return config;
}

// What is measured is real: the output alone is rounded at 2^-9 in bf16 and 2^-24 in fp32.
TEST(AttentionSelfTest, TheCpuPasses) {
  for (const double softcap : {0.0, 5.0}) {
    ModelConfig config = Shape();
    config.attn_logit_softcapping = softcap;
    for (const at::ScalarType dtype : {at::kDouble, at::kFloat, at::kBFloat16}) {
      EXPECT_NO_THROW(CheckAttention(config, dtype, at::kCPU)) << dtype << " " << softcap;
    }
    EXPECT_GT(AttentionError(config, at::kBFloat16, at::kCPU), 3e-5);
    EXPECT_GT(AttentionError(config, at::kFloat, at::kCPU), 1e-8);
  }
}

}  // namespace
}  // namespace plural::trainer
