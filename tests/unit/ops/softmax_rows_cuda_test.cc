// The kernels of logits' own source, run by an emulation of blocks of GPU threads, against fp64.

#include "trainer/ops/softmax_rows_cuda.h"

#include <ATen/ops/full.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tests/unit/support/emulated_kernels.h"
#include "tests/unit/support/naive_model.h"
#include "trainer/ops/softmax_rows.h"

namespace plural::trainer {
namespace {

// Rows that are flat, peaked, and so peaked that 1 - p of the largest underflows in fp32.
at::Tensor LogitRows(std::int64_t count) {
  const at::Tensor z_RV = testing::RandomTensor({4, count}, 3).mul_(8.0);
  z_RV.select(0, 1).select(0, count / 2).add_(20.0);
  z_RV.select(0, 2).select(0, count - 1).add_(60.0);
  z_RV.select(0, 3).mul_(1e-3);
  return z_RV.to(at::kFloat);
}

TEST(LogitKernels, StatisticsOfRows) {
  const CudaKernels kernels = testing::EmulatedKernels();
  for (const std::int64_t count : {2, 511, 512, 513, 3000}) {
    for (const double temperature : {1.0, 0.7}) {
      const at::Tensor z_RV = LogitRows(count), exact_RV = z_RV.to(at::kDouble) / temperature;
      const auto found = StatisticsOfRowsOnCuda(z_RV, temperature, &kernels);
      ASSERT_TRUE(found);
      const at::Tensor lse_R = at::logsumexp(exact_RV, 1);
      const at::Tensor log_p_RV = exact_RV - lse_R.unsqueeze(1);
      const at::Tensor top_R = exact_RV.argmax(1);
      const at::Tensor others_RV = exact_RV.scatter(1, top_R.unsqueeze(1), -INFINITY);
      // A logit of 80 has 24 bits: 5e-6. Exponentials have it, too, and sums of them.
      const auto expect_near = [&](const at::Tensor& x, const at::Tensor& y, const char* what) {
        EXPECT_LT((x - y).abs().max().item<double>(), 3e-5) << what << " of " << count;
      };
      expect_near(found->lse_R, lse_R, "lse");
      expect_near(found->entropy_nats_R, -(log_p_RV.exp() * log_p_RV).sum(1), "entropy");
      expect_near(found->lse_of_others_R, at::logsumexp(others_RV, 1), "lse of others");
      EXPECT_TRUE(found->column_R.equal(top_R)) << count;
    }
  }
}

// What the head asks for: every row's statistics in one reading of the logits, also for the edges.
TEST(LogitKernels, StatisticsOfEdgesStartOneKernel) {
  static int starts = 0;
  CudaKernels kernels;
  kernels.row_statistics = [](const RowStatisticsArguments& arguments, void* stream) {
    ++starts;
    return testing::EmulatedKernels().row_statistics(arguments, stream);
  };
  const at::Tensor z_RV = LogitRows(600), exact_RV = z_RV.to(at::kDouble);
  const at::Tensor row_E = at::tensor({0, 1, 1, 2, 3}, at::kLong);
  const at::Tensor target_E =
      at::tensor({5, 7, 300, 599, 0}, at::kLong);  // 300, 599: the largest of their rows
  const EdgeStatistics found = StatisticsOfEdges(z_RV, row_E, target_E, &kernels);
  EXPECT_EQ(starts, 1);
  const EdgeStatistics wanted = StatisticsOfEdges(exact_RV, row_E, target_E);
  // As above; log(1 - p) of -60, too, is a difference of such numbers.
  const auto expect_near = [](const at::Tensor& x, const at::Tensor& y) {
    EXPECT_LT((x - y).abs().max().item<double>(), 3e-5);
  };
  expect_near(found.lse_R, wanted.lse_R);
  expect_near(found.log_p_E, wanted.log_p_E);
  expect_near(found.log_one_minus_p_E, wanted.log_one_minus_p_E);
}

TEST(LogitKernels, ARowThatIsNotANumberShowsIt) {
  const CudaKernels kernels = testing::EmulatedKernels();
  const at::Tensor z_RV = at::full({1, 600}, 1.0, at::kFloat);
  z_RV.select(1, 77).fill_(NAN);
  EXPECT_TRUE(StatisticsOfRowsOnCuda(z_RV, 1.0, &kernels)->lse_R.isnan().all().item<bool>());
}

TEST(LogitKernels, RowGradients) {
  const CudaKernels kernels = testing::EmulatedKernels();
  for (const std::int64_t count : {3, 512, 5000}) {
    for (const double softcap : {0.0, 90.0}) {
      const at::Tensor z_RV = LogitRows(count), exact_RV = z_RV.to(at::kDouble);
      const at::Tensor lse_R = at::logsumexp(exact_RV, 1), c_R = testing::RandomTensor({4}, 5);
      at::Tensor wanted_RV = c_R.unsqueeze(1) * (exact_RV - lse_R.unsqueeze(1)).exp();
      if (softcap > 0.0) wanted_RV *= 1.0 - (exact_RV / softcap).square();
      ASSERT_TRUE(RowGradientServes(z_RV, &kernels));
      RowGradientOnGpu(z_RV, lse_R, c_R, softcap, &kernels);
      // log p is a difference of numbers up to 80 in fp32.
      EXPECT_LT(testing::RelativeError(z_RV.to(at::kDouble), wanted_RV), 3e-5) << count << " " << softcap;
    }
  }
}

TEST(LogitKernels, LeaveWhatTheyDoNotServeToOthers) {
  const CudaKernels kernels = testing::EmulatedKernels();
  const at::Tensor z_RV = LogitRows(16);
  EXPECT_FALSE(StatisticsOfRowsOnCuda(z_RV, 1.0));  // on the CPU, with none given
  EXPECT_FALSE(StatisticsOfRowsOnCuda(z_RV.to(at::kDouble), 1.0, &kernels));
  EXPECT_FALSE(RowGradientServes(z_RV.narrow(1, 0, 8), &kernels));
}

}  // namespace
}  // namespace plural::trainer
