// What auto, cpu and cuda mean.
#include "trainer/commands/compute_device.h"

#include <gtest/gtest.h>

#include <cstdlib>

namespace plural::trainer {
namespace {

TEST(UsesCuda, CpuAndFp64StayOnTheCpu) {
  EXPECT_FALSE(UsesCuda("cpu", "bf16"));
  EXPECT_FALSE(UsesCuda("auto", "fp64"));
  EXPECT_FALSE(UsesCuda("cuda", "fp64"));
}

TEST(UsesCuda, CudaIsTakenAtItsWord) {
  EXPECT_TRUE(UsesCuda("cuda", "fp32"));
  EXPECT_TRUE(UsesCuda("cuda", "bf16"));
}

TEST(UsesCuda, AutoTakesNoGpuThatIsHidden) {
  setenv("CUDA_VISIBLE_DEVICES", "", /*overwrite=*/1);
  EXPECT_FALSE(UsesCuda("auto", "fp32"));
}

}  // namespace
}  // namespace plural::trainer
