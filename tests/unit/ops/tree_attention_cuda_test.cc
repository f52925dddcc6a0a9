// The attention kernels' own source, run by an emulation of blocks of GPU threads, against a masked softmax
// in fp64.

#include "trainer/ops/tree_attention_cuda.h"

#include <ATen/ops/equal.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>

#include "tests/unit/support/emulated_kernels.h"
#include "tests/unit/support/naive_model.h"

namespace plural::trainer {
namespace {

using testing::RandomTensor;

struct KernelCase {
  data::RowPass pass;
  std::int64_t heads = 1, shared_heads = 1, dim = 64, window = 0;
  double softcap = 0.0;
  at::ScalarType dtype = at::kBFloat16;
  std::int64_t gap = 0;  // values between two rows of q, k and v

  AttentionTerms Terms() const {
    return {.window_of_layer = {window},
            .scale = 1.0 / std::sqrt(static_cast<double>(dim)),
            .softcap = softcap,
            .heads = heads,
            .shared_heads = shared_heads,
            .head_dim = dim};
  }
};

struct LeafTensors {
  at::Tensor q, k, v;
};

LeafTensors LeavesOf(const KernelCase& c) {
  const auto leaf = [&c](std::int64_t heads, std::uint64_t key, double size) {
    const at::Tensor all = RandomTensor({c.pass.length, heads * c.dim + c.gap}, key).mul_(size).to(c.dtype);
    return all.narrow(1, 0, heads * c.dim).view({c.pass.length, heads, c.dim}).set_requires_grad(true);
  };
  return {leaf(c.heads, 1, 3.0), leaf(c.shared_heads, 2, 3.0), leaf(c.shared_heads, 3, 1.0)};
}

std::vector<at::Tensor> ResultAndGradients(const at::Tensor& out, const LeafTensors& in) {
  std::vector<at::Tensor> all = {out.detach()};
  const at::Tensor direction = RandomTensor(out.sizes().vec(), 9).to(out.scalar_type());
  for (const at::Tensor& g : torch::autograd::grad({out}, {in.q, in.k, in.v}, {direction})) all.push_back(g);
  return all;
}

std::vector<at::Tensor> ByKernels(const KernelCase& c) {
  const LeafTensors in = LeavesOf(c);
  const auto attention =
      MakeTreeAttentionOnCuda(c.pass, c.Terms(), c.dtype, at::kCPU, testing::EmulatedKernels());
  return ResultAndGradients((*attention)(0, in.q, in.k, in.v), in);
}

std::vector<at::Tensor> InFp64(const KernelCase& c) {
  const LeafTensors rounded = LeavesOf(c);
  const auto exact = [](const at::Tensor& x) { return x.detach().to(at::kDouble).set_requires_grad(true); };
  const LeafTensors in = {exact(rounded.q), exact(rounded.k), exact(rounded.v)};
  return ResultAndGradients(
      testing::NaiveAttention(in.q, in.k, in.v, testing::Visible(c.pass, c.window), 0.0, c.softcap), in);
}

// A logit is a sum of `dim` products of at most 9, rounded to 2^-24 each, times 1 / sqrt(dim): so far apart
// are two exponents, and twice that a probability and its gradient, beside a few roundings of their own. bf16
// rounds probabilities, their gradients and results to 2^-9, in sums that may cancel to a fifth of their
// terms.
double AllowedFor(const KernelCase& c) {
  const auto dim = static_cast<double>(c.dim);
  return 2.0 * 9.0 * std::sqrt(dim) * dim / (1 << 24) +
         (c.dtype == at::kBFloat16 ? 3.0 * 5.0 / 512.0 : 16.0 / (1 << 24));
}

void ExpectEqualToSoftmax(const KernelCase& c) {
  const auto found = ByKernels(c), wanted = InFp64(c);
  for (std::size_t i = 0; i < found.size(); ++i) {
    ASSERT_LT(testing::RelativeError(found[i].to(at::kDouble), wanted[i]), AllowedFor(c))
        << "tensor " << i << ", " << c.pass.length << " rows, " << c.heads << " heads of " << c.dim << " on "
        << c.shared_heads << ", window " << c.window << ", cap " << c.softcap << ", " << c.dtype;
  }
}

constexpr at::ScalarType kKernelTypes[] = {at::kFloat, at::kBFloat16};

TEST(TreeAttentionKernels, EqualMaskedSoftmaxForAnyNumberOfRows) {
  for (const at::ScalarType dtype : kKernelTypes) {
    for (const std::int64_t rows : {1, 2, 15, 16, 17, 63, 64, 65, 130}) {
      for (const int branching : {4, 30}) {
        ExpectEqualToSoftmax(
            {.pass = testing::RandomTreePass(rows, static_cast<std::uint64_t>(rows), 29, branching),
             .heads = 2,
             .shared_heads = 1,
             .dtype = dtype});
      }
    }
  }
}

TEST(TreeAttentionKernels, WindowsAndBoundedScores) {
  for (const at::ScalarType dtype : kKernelTypes) {
    for (const std::int64_t window : {0, 1, 7, 40}) {
      for (const double softcap : {0.0, 2.0}) {
        ExpectEqualToSoftmax({.pass = testing::RandomTreePass(150, 7, 29, 20),
                              .heads = 2,
                              .shared_heads = 2,
                              .window = window,
                              .softcap = softcap,
                              .dtype = dtype});
      }
    }
  }
}

TEST(TreeAttentionKernels, AnyNumberOfHeadsPerKeyHead) {
  for (const at::ScalarType dtype : kKernelTypes) {
    for (const auto& [heads, shared_heads] : {std::pair{4, 1}, {8, 2}, {7, 1}, {6, 2}, {3, 3}}) {
      ExpectEqualToSoftmax({.pass = testing::RandomTreePass(70, 5, 29, 12),
                            .heads = heads,
                            .shared_heads = shared_heads,
                            .dtype = dtype});
    }
  }
}

TEST(TreeAttentionKernels, HeadDimensionsUpTo256) {
  for (const at::ScalarType dtype : kKernelTypes) {
    for (const std::int64_t dim : {8, 72, 96, 128, 256}) {
      ExpectEqualToSoftmax({.pass = testing::RandomTreePass(90, 3, 29, 12),
                            .heads = 2,
                            .shared_heads = 1,
                            .dim = dim,
                            .window = 30,
                            .dtype = dtype});
    }
  }
}

// Rows of q, k and v may lie apart, as in a joined projection; where they are not aligned, they are copied.
TEST(TreeAttentionKernels, TakeRowsThatLieApart) {
  KernelCase c{.pass = testing::RandomTreePass(40, 3, 29, 12), .heads = 2, .shared_heads = 1};
  const auto dense = ByKernels(c);
  // The same numbers, of which the draws in a row of another width would be others.
  const auto apart = [](const at::Tensor& x, std::int64_t gap) {
    const at::Tensor wide =
        at::empty({x.size(0), x.size(1) * x.size(2) + gap}, x.options().requires_grad(false));
    const at::Tensor part = wide.narrow(1, 0, x.size(1) * x.size(2));
    part.copy_(x.detach().view({x.size(0), -1}));
    return part.view(x.sizes()).set_requires_grad(true);
  };
  for (const std::int64_t gap : {8, 3}) {
    const LeafTensors in = LeavesOf(c);
    const LeafTensors wide = {apart(in.q, gap), apart(in.k, gap), apart(in.v, gap)};
    const auto attention =
        MakeTreeAttentionOnCuda(c.pass, c.Terms(), c.dtype, at::kCPU, testing::EmulatedKernels());
    const auto found = ResultAndGradients((*attention)(0, wide.q, wide.k, wide.v), wide);
    for (std::size_t i = 0; i < found.size(); ++i)
      EXPECT_TRUE(at::equal(found[i], dense[i])) << i << " " << gap;
  }
}

// What one branch holds changes no bit of another's rows.
TEST(TreeAttentionKernels, BranchesDoNotSeeEachOther) {
  data::RowPass pass;
  pass.length = pass.rows = 160;  // a prompt of 40 and three branches of 40
  for (std::int32_t row = 0; row < 160; ++row) {
    pass.position.push_back(row < 40 ? row : 40 + row % 40);
    pass.end.push_back(row < 40 ? 160 : row / 40 * 40 + 40);
  }
  const KernelCase c{.pass = pass, .heads = 4, .shared_heads = 1};
  const LeafTensors in = LeavesOf(c);
  const auto out = [&] {
    const auto attention =
        MakeTreeAttentionOnCuda(pass, c.Terms(), c.dtype, at::kCPU, testing::EmulatedKernels());
    return (*attention)(0, in.q.detach(), in.k.detach(), in.v.detach());
  };
  const at::Tensor before = out();
  in.k.detach().narrow(0, 80, 40).fill_(100.0);
  in.v.detach().narrow(0, 80, 40).fill_(100.0);
  const at::Tensor after = out();
  for (const std::int64_t row : {0, 40, 120}) {
    EXPECT_TRUE(at::equal(before.narrow(0, row, 40), after.narrow(0, row, 40))) << row;
  }
  EXPECT_FALSE(at::equal(before.narrow(0, 80, 40), after.narrow(0, 80, 40)));
}

TEST(TreeAttentionKernels, LeaveWhatTheyDoNotServeToOthers) {
  const auto made = [](const KernelCase& c, const CudaKernels& kernels) {
    return MakeTreeAttentionOnCuda(c.pass, c.Terms(), c.dtype, at::kCPU, kernels) != nullptr;
  };
  KernelCase c{.pass = testing::RandomTreePass(5, 3)};
  EXPECT_TRUE(made(c, testing::EmulatedKernels()));
  EXPECT_FALSE(made(c, CudaKernels{}));
  c.dim = 60;
  EXPECT_FALSE(made(c, testing::EmulatedKernels()));
  c.dim = 264;
  EXPECT_FALSE(made(c, testing::EmulatedKernels()));
  c.dim = 64, c.dtype = at::kDouble;
  EXPECT_FALSE(made(c, testing::EmulatedKernels()));
}

}  // namespace
}  // namespace plural::trainer
