// The GPU part as far as it goes without a GPU: its libraries load, and at the right time.
#include <ATen/core/Tensor.h>
#include <ATen/ops/ones.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "dist/collectives.h"
#include "dist/cuda/own_gpu.h"

namespace plural::dist {
namespace {

bool Contains(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

// gtest runs it first, in a process of its own: nothing is loaded yet.
TEST(NcclModuleDeathTest, SaysThatSomethingWasDifferentiatedBefore) {
  if (!NcclCompiled()) {
    EXPECT_TRUE(Contains(NcclProblem(), "launch/setup --gpu"));
    return;
  }
  const auto late = [] {
    const at::Tensor x = at::ones({2}).set_requires_grad(true);
    torch::autograd::backward({x.sum()}, {});
    std::_Exit(Contains(NcclProblem(), "before anything is differentiated") ? 0 : 1);
  };
  EXPECT_EXIT(late(), testing::ExitedWithCode(0), "");
}

TEST(NcclModule, LoadsTheVersionThatItWasCompiledFor) {
  if (!NcclCompiled()) {
    EXPECT_EQ(LoadedNcclVersionText(), "");
    return;
  }
  EXPECT_EQ(NcclProblem(), "");
  EXPECT_EQ(LoadedNcclVersionText(), NcclVersion());
}

TEST(OwnGpu, IsSharedWithNoOtherRank) {
  const std::vector<std::string> shared = {"a", "b", "c", "b"};
  for (const int alone : {0, 2}) EXPECT_NO_THROW(RequireOwnGpu(shared, alone)) << alone;
  for (const int rank : {1, 3}) EXPECT_THROW(RequireOwnGpu(shared, rank), ResourceError) << rank;
}

}  // namespace
}  // namespace plural::dist
