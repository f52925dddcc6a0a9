#include "trainer/ops/cuda_kernels.h"

#include <gtest/gtest.h>

#include "tests/unit/support/emulated_kernels.h"
#include "trainer/base/error.h"

namespace plural::trainer {
namespace {

using testing::EmulatedKernels;

TEST(WithoutKernels, NamedOnesAreLeftToLibtorch) {
  const CudaKernels all = EmulatedKernels();
  const CudaKernels some = WithoutKernels(all, "norm,rows");
  EXPECT_EQ(some.rms_norm, nullptr);
  EXPECT_EQ(some.rms_norm_backward, nullptr);
  EXPECT_EQ(some.row_statistics, nullptr);
  EXPECT_EQ(some.row_gradient, nullptr);
  EXPECT_NE(some.gate, nullptr);
  EXPECT_NE(some.rotate, nullptr);
  EXPECT_NE(some.tree_attention_serves, nullptr);
  EXPECT_EQ(WithoutKernels(all, "attention,gate,rotation").tree_attention_serves, nullptr);
  EXPECT_EQ(WithoutKernels(all, "attention,gate,rotation").rotate, nullptr);
  EXPECT_NE(some.path_attention, nullptr);
  EXPECT_EQ(WithoutKernels(all, "paged").path_attention, nullptr);
  EXPECT_NE(WithoutKernels(all, "paged").sample_rows, nullptr);
  EXPECT_EQ(WithoutKernels(all, "sampling").sample_rows, nullptr);
  EXPECT_EQ(WithoutKernels(all, "rotation").rotate_joined, nullptr);
  EXPECT_EQ(WithoutKernels(all, "gate").gate_joined, nullptr);
  EXPECT_NE(some.adamw, nullptr);
  EXPECT_EQ(WithoutKernels(all, "adamw").adamw, nullptr);
  EXPECT_EQ(WithoutKernels(all, "dropout").drop_sites, nullptr);
  EXPECT_EQ(WithoutKernels(all, "").rms_norm, all.rms_norm);
}

TEST(WithoutKernels, RefusesOtherNames) {
  for (const char* names : {"all", "norm, rows", ",", "nf4"}) {
    EXPECT_THROW(WithoutKernels(EmulatedKernels(), names), ExitError) << names;
  }
}

TEST(KernelModule, IsThereOrSaysWhyNot) {
  const std::string& problem = KernelsProblem();
  EXPECT_EQ(FindCudaKernels().tree_attention == nullptr, !problem.empty()) << problem;
  EXPECT_EQ(problem.find("nvcc") == std::string::npos, problem.empty()) << problem;
}

TEST(KernelModule, FilesThatAreNoneAreRefusedWithTheReason) {
  const KernelModule missing = OpenKernelModule("libplural_no_kernels.so");
  EXPECT_EQ(missing.problem.find("they do not load: libplural_no_kernels.so: cannot open shared object file"),
            0U)
      << missing.problem;
  const KernelModule other = OpenKernelModule("libm.so.6");  // a library, but not this one
  EXPECT_EQ(other.problem.find("libm.so.6 lacks plural_"), 0U) << other.problem;
  for (const KernelModule& none : {missing, other}) EXPECT_EQ(none.kernels.rms_norm, nullptr);
}

}  // namespace
}  // namespace plural::trainer
