#include "trainer/commands/model_options.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace plural::trainer {
namespace {

// These words stand in files of answers that were kept: without --quantize they stay as they were before it.
TEST(ComputedWith, NamesFourBitsOnlyWhereTheyAreAskedFor) {
  EXPECT_EQ(ComputedWith({}, at::kCPU).dump(), R"(["fp32","cpu"])");
  EXPECT_EQ(ComputedWith({.dtype = "bf16", .quantize = "nf4"}, at::kCUDA).dump(), R"(["bf16","cuda","nf4"])");
}

}  // namespace
}  // namespace plural::trainer
