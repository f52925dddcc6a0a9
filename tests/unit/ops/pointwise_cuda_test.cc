// The row-wise kernels' own source, run by an emulation of blocks of GPU threads, against the loops of the
// CPU.

#include "trainer/ops/pointwise_cuda.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "tests/unit/support/emulated_kernels.h"
#include "tests/unit/support/naive_model.h"
#include "trainer/ops/pointwise.h"

namespace plural::trainer {
namespace {

constexpr at::ScalarType kStoredTypes[] = {at::kFloat, at::kBFloat16};

at::Tensor Drawn(std::vector<std::int64_t> shape, std::uint64_t key, at::ScalarType dtype) {
  return testing::RandomTensor(std::move(shape), key).mul_(3.0).to(dtype);
}
at::Tensor DrawnLeaf(std::vector<std::int64_t> shape, std::uint64_t key, at::ScalarType dtype) {
  return Drawn(std::move(shape), key, dtype).set_requires_grad(true);
}

// Both sides round a few fp32 operations per value, and bf16 at the end: a value next to a tie may fall to
// either side, one step of up to 2^-7 of it. Sums over rows have some hundred terms.
void ExpectClose(const at::Tensor& found, const at::Tensor& wanted, const char* what) {
  ASSERT_EQ(found.scalar_type(), wanted.scalar_type()) << what;
  const double allowed = found.scalar_type() == at::kBFloat16 ? 1.0 / 128 : 1e-5;
  EXPECT_LT(testing::RelativeError(found.to(at::kDouble), wanted.detach().to(at::kDouble)), allowed)
      << what << " " << found.scalar_type() << " " << found.sizes();
}

TEST(PointwiseKernels, NormWithResidualSum) {
  const CudaKernels kernels = testing::EmulatedKernels();
  for (const at::ScalarType dtype : kStoredTypes) {
    for (const std::int64_t rows : {1, 65, 200}) {
      for (const std::int64_t count : {8, 128, 512, 520, 4096}) {
        if (rows == 200 && count > 128) continue;
        const at::Tensor x = DrawnLeaf({rows, count}, 1, dtype), branch = DrawnLeaf({rows, count}, 2, dtype);
        const at::Tensor weight = DrawnLeaf({count}, 3, at::kFloat);
        const NormTerms terms{.eps = 1e-5, .weight_offset = 1.0};
        const at::Tensor factor = weight.detach() + 1.0;
        const SumAndNorm wanted = AddRmsNorm(x, branch, weight, terms);
        const auto found = NormOnCuda(x.detach(), branch.detach(), factor, terms.eps, &kernels);
        ASSERT_TRUE(found);
        EXPECT_TRUE(found->sum_NE.equal(wanted.sum_NE.detach()));
        ExpectClose(found->norm_NE, wanted.norm_NE, "norm");

        const at::Tensor dnorm = Drawn({rows, count}, 4, dtype), dsum = Drawn({rows, count}, 5, dtype);
        const auto grads = torch::autograd::grad({wanted.norm_NE, wanted.sum_NE}, {x, weight}, {dnorm, dsum});
        const auto back =
            NormBackwardOnCuda(found->sum_NE, found->rstd_N1, factor, dnorm, dsum, true, &kernels);
        ASSERT_TRUE(back);
        ExpectClose(back->dx_NE, grads[0], "dx");
        ExpectClose(back->dweight_E, grads[1], "dweight");

        const at::Tensor alone = RmsNorm(x, weight, terms);
        ExpectClose(NormOnCuda(x.detach(), {}, factor, terms.eps, &kernels)->norm_NE, alone, "norm alone");
      }
    }
  }
}

TEST(PointwiseKernels, NormOfARowThatOverflowsIsNotANumber) {
  const CudaKernels kernels = testing::EmulatedKernels();
  const at::Tensor x = at::full({1, 8}, 1e25, at::kFloat), one = at::ones({8}, at::kFloat);
  EXPECT_TRUE(NormOnCuda(x, {}, one, 1e-5, &kernels)->norm_NE.isnan().all().item<bool>());
}

TEST(PointwiseKernels, GatedActivations) {
  const CudaKernels kernels = testing::EmulatedKernels();
  for (const at::ScalarType dtype : kStoredTypes) {
    for (const bool silu : {true, false}) {
      for (const std::int64_t features : {8, 2056}) {
        at::Tensor gate = Drawn({5, features}, 1, dtype);
        gate.select(0, 1).mul_(100.0);  // where exp of it is 0 or infinite
        gate.set_requires_grad(true);
        const at::Tensor up = DrawnLeaf({5, features}, 2, dtype), dout = Drawn({5, features}, 3, dtype);
        const at::Tensor wanted = GatedActivation(silu ? Activation::kSilu : Activation::kGeluTanh, gate, up);
        ExpectClose(GatedOnCuda(gate.detach(), up.detach(), silu, &kernels), wanted, "gated");
        const auto grads = torch::autograd::grad({wanted}, {gate, up}, {dout});
        const auto back = GatedBackwardOnCuda(gate.detach(), up.detach(), dout, silu, &kernels);
        ASSERT_TRUE(back);
        ExpectClose(back->dgate_NF, grads[0], "dgate");
        ExpectClose(back->dup_NF, grads[1], "dup");
      }
    }
  }
}

TEST(PointwiseKernels, Rotations) {
  const CudaKernels kernels = testing::EmulatedKernels();
  for (const at::ScalarType dtype : kStoredTypes) {
    for (const std::int64_t dim : {16, 128}) {
      for (const std::int64_t heads : {1, 3}) {
        const at::Tensor x = DrawnLeaf({37, heads * dim}, 1, dtype), dy = Drawn({37, heads * dim}, 2, dtype);
        const RotaryTable table = MakeRotaryTable(at::arange(37, at::kInt), dim, Rope{}, dtype);
        const at::Tensor wanted = Rotate(x, table);
        ExpectClose(RotatedOnCuda(x.detach(), table.cos_ND2, table.sin_ND2, false, &kernels), wanted,
                    "turned");
        ExpectClose(RotatedOnCuda(dy, table.cos_ND2, table.sin_ND2, true, &kernels),
                    torch::autograd::grad({wanted}, {x}, {dy})[0], "turned back");
      }
    }
  }
}

TEST(PointwiseKernels, LeaveWhatTheyDoNotServeToOthers) {
  const CudaKernels kernels = testing::EmulatedKernels();
  const at::Tensor odd = at::zeros({3, 12}, at::kFloat), even = at::zeros({3, 16}, at::kFloat);
  EXPECT_FALSE(NormOnCuda(odd, {}, odd.select(0, 0), 1e-5, &kernels));
  EXPECT_FALSE(NormOnCuda(even.to(at::kDouble), {}, even.select(0, 0), 1e-5, &kernels));
  EXPECT_FALSE(NormOnCuda(even, {}, even.select(0, 0), 1e-5));  // on the CPU, with none given
  EXPECT_FALSE(GatedOnCuda(odd.narrow(0, 0, 1), odd.narrow(0, 0, 1), true, &kernels).defined());
  EXPECT_FALSE(RotatedOnCuda(even, odd.narrow(1, 0, 4), odd.narrow(1, 0, 4), false, &kernels).defined());
}

}  // namespace
}  // namespace plural::trainer
