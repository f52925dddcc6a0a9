#include "trainer/run/device_check.h"

#include <gtest/gtest.h>

#include <string>

#include "trainer/base/error.h"

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

TEST(AttentionSelfTest, AGpuRefusesHeadsThatItsKernelLacks) {
  ModelConfig config = Shape();
  const auto refused = [&](std::int64_t head_dim, at::ScalarType dtype, at::Device device) -> std::string {
    config.head_dim = head_dim;
    try {
      RequireHeadDimension(config, dtype, device);
    } catch (const ExitError& error) {
      EXPECT_EQ(error.Code(), ExitCode::kBadRecipe);
      return error.what();
    }
    return "";
  };
  EXPECT_EQ(refused(40, at::kBFloat16, at::kCUDA), "");
  EXPECT_EQ(refused(36, at::kFloat, at::kCUDA), "");
  EXPECT_EQ(refused(36, at::kBFloat16, at::kCPU), "");
  EXPECT_NE(refused(36, at::kBFloat16, at::kCUDA)
                .find("multiple of 8: compute on the CPU (model.device=cpu, or --device cpu), or in fp32"),
            std::string::npos);
  EXPECT_NE(refused(38, at::kFloat, at::kCUDA).find("multiple of 4: compute on the CPU"), std::string::npos);
  config.attn_logit_softcapping = 5.0;  // computed by plain products
  EXPECT_EQ(refused(38, at::kFloat, at::kCUDA), "");
}

TEST(KernelWarning, NamesTheRankTheReasonAndTheCost) {
  EXPECT_EQ(KernelWarning({"", ""}), "");
  const std::string said = KernelWarning({"", "no nvcc", "another"});
  EXPECT_EQ(said.find("rank 1 lacks the kernels for GPUs: no nvcc. "), 0U) << said;
  EXPECT_NE(said.find("grow with the square of rows"), std::string::npos) << said;
}

}  // namespace
}  // namespace plural::trainer
