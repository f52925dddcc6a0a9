#include "trainer/commands/gpu_arithmetic.h"

#include <ATen/Context.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

namespace plural::trainer {
namespace {

TEST(GpuArithmetic, SplitSumsAreNotRoundedAndOneOrderIsAskedFor) {
  at::Context& context = at::globalContext();
  SetGpuArithmetic(false);
  EXPECT_EQ(context.allowBF16ReductionCuBLAS(),
            at::CuBLASReductionOption::DisallowReducedPrecisionAllowSplitK);
  EXPECT_FALSE(context.deterministicAlgorithms());
  EXPECT_FALSE(context.allowTF32CuBLAS());

  unsetenv("CUBLAS_WORKSPACE_CONFIG");
  SetGpuArithmetic(true);
  EXPECT_TRUE(context.deterministicAlgorithms());
  EXPECT_FALSE(context.deterministicAlgorithmsWarnOnly());
  EXPECT_FALSE(context.deterministicFillUninitializedMemory());
  EXPECT_EQ(std::string(std::getenv("CUBLAS_WORKSPACE_CONFIG")), ":4096:8");
  context.setDeterministicAlgorithms(false, false);
}

}  // namespace
}  // namespace plural::trainer
