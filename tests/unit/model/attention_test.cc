#include "trainer/ops/attention.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>

#include "tests/unit/support/naive_model.h"
#include "trainer/ops/capped_attention.h"

namespace plural::trainer {
namespace {

using namespace testing;  // NOLINT: the test's own vocabulary

struct Inputs {
  at::Tensor q, k, v;
};

Inputs MakeInputs(std::int64_t rows, std::int64_t heads, std::int64_t shared_heads, std::int64_t dim,
                  at::ScalarType dtype = at::kDouble) {
  return {RandomTensor({rows, heads, dim}, 1, dtype).mul_(3.0).set_requires_grad(true),
          RandomTensor({rows, shared_heads, dim}, 2, dtype).mul_(3.0).set_requires_grad(true),
          RandomTensor({rows, shared_heads, dim}, 3, dtype).set_requires_grad(true)};
}

std::vector<at::Tensor> WithGradients(const at::Tensor& out, const Inputs& in) {
  std::vector<at::Tensor> all = {out};
  const at::Tensor direction = RandomTensor(out.sizes().vec(), 9, out.scalar_type());
  for (const at::Tensor& g : torch::autograd::grad({(out * direction).sum()}, {in.q, in.k, in.v})) {
    all.push_back(g);
  }
  return all;
}

ModelConfig OneLayer(std::int64_t window, std::int64_t dim, double softcap = 0.0) {
  ModelConfig config;
  config.num_hidden_layers = 1;
  config.head_dim = dim;
  config.sliding_window = window;
  config.attn_logit_softcapping = softcap;
  return config;
}

void ExpectEqualToNaive(const data::RowPass& pass, std::int64_t window, std::int64_t heads,
                        std::int64_t shared_heads, std::int64_t dim, double softcap = 0.0) {
  const Inputs in = MakeInputs(pass.batch * pass.length, heads, shared_heads, dim);
  const auto attention =
      MakePassAttention(pass, OneLayer(window, dim, softcap).Attention(), at::kDouble, at::kCPU);
  const auto found = WithGradients((*attention)(0, in.q, in.k, in.v), in);
  const auto wanted =
      WithGradients(NaiveAttention(in.q, in.k, in.v, Visible(pass, window), 0.0, softcap), in);
  for (std::size_t i = 0; i < found.size(); ++i) {
    // Sums of a few hundred products, exponents of at most 9 * sqrt(dim).
    EXPECT_LT(RelativeError(found[i], wanted[i]), 1e-12)
        << "tensor " << i << ", " << pass.length << " rows, window " << window;
  }
}

// What the CPU computes in fp32 and bf16 is multiplied by other kernels, and packed otherwise, than fp64. In
// both a logit is a sum of `dim` products of at most 9, rounded to 2^-24 each, times 1 / sqrt(dim): so far
// apart are two exponents, and twice that a probability and its gradient, beside a few roundings of their
// own. bf16 rounds probabilities, their gradients and results to 2^-9, in sums that may cancel to a fifth of
// their terms.
double AllowedError(at::ScalarType dtype, std::int64_t dim) {
  const double exponent = 9.0 * std::sqrt(static_cast<double>(dim)) * static_cast<double>(dim) / (1 << 24);
  return 2.0 * exponent + (dtype == at::kBFloat16 ? 3.0 * 2.0 / 512.0 : 16.0 / (1 << 24));
}

TEST(Attention, TreeEqualsMaskedSoftmaxInEveryType) {
  for (const auto& [dtype, allowed] :
       {std::pair{at::kFloat, 1e-4}, std::pair{at::kBFloat16, 3 * 5 / 512.0}}) {
    for (const std::int64_t rows : {1, 2, 15, 17, 63, 65, 200, 333}) {
      for (const std::int64_t window : {0, 20}) {
        for (const std::int64_t dim : {8, 16, 40}) {
          const data::RowPass pass = RandomTreePass(rows, static_cast<std::uint64_t>(rows), 29, 12);
          const Inputs in = MakeInputs(rows, 4, 2, dim, dtype);
          const auto exact = [](const at::Tensor& x) {
            return x.detach().to(at::kDouble).set_requires_grad(true);
          };
          const Inputs wide = {exact(in.q), exact(in.k), exact(in.v)};
          const auto attention = MakePassAttention(pass, OneLayer(window, dim).Attention(), dtype, at::kCPU);
          const auto found = WithGradients((*attention)(0, in.q, in.k, in.v), in);
          const auto wanted =
              WithGradients(NaiveAttention(wide.q, wide.k, wide.v, Visible(pass, window)), wide);
          for (std::size_t i = 0; i < found.size(); ++i) {
            EXPECT_LT(RelativeError(found[i].to(at::kDouble), wanted[i]), AllowedError(dtype, dim))
                << "tensor " << i << ", " << rows << " rows of " << dim << ", window " << window << ", "
                << dtype;
          }
        }
      }
    }
  }
}

TEST(Attention, TreeEqualsMaskedSoftmax) {
  for (const std::int64_t rows : {1, 2, 7, 64, 65, 200, 333}) {
    for (const int branching : {2, 4, 40}) {
      ExpectEqualToNaive(RandomTreePass(rows, static_cast<std::uint64_t>(rows), 29, branching), 0, 4, 2, 8);
    }
  }
  ExpectEqualToNaive(RandomTreePass(90, 5), 0, 3, 3, 5);
  ExpectEqualToNaive(RandomTreePass(90, 5), 0, 6, 1, 16);
}

TEST(Attention, TreeWindowIsInPathPosition) {
  for (const std::int64_t window : {1, 3, 20}) {
    ExpectEqualToNaive(RandomTreePass(150, 7, 29, 12), window, 4, 2, 8);
  }
}

TEST(Attention, BoundedScores) {
  for (const std::int64_t window : {0, 20}) {
    ExpectEqualToNaive(RandomTreePass(150, 7, 29, 12), window, 4, 2, 8, 2.0);
    ExpectEqualToNaive(PlainPass(2, 50, 1), window, 4, 2, 8, 2.0);
  }
  ExpectEqualToNaive(PlainPass(1, 300, 1), 0, 2, 1, 8, 2.0);  // several blocks of rows
}

// Every query sees the first key alone, so that dv there is the sum of dout over queries: 256 from the first
// block of 256, 1 from each of eight others. A sum in bf16 would stay at 256, whose next number is 258.
TEST(CappedAttention, SumsOverBlocksOfQueriesAreNotRoundedToBf16) {
  constexpr std::int64_t kQueries = 9 * 256, kDim = 8;
  const auto values = [](double value) {
    return at::full({1, 1, kQueries, kDim}, value, at::kBFloat16).set_requires_grad(true);
  };
  const at::Tensor q = values(0.5), k = values(0.5), v = values(1.0);
  const at::Tensor mask = at::full({1, 1, kQueries, kQueries}, -INFINITY, at::kBFloat16);
  mask.select(3, 0).zero_();
  const at::Tensor dout = at::full({1, 1, kQueries, kDim}, 1.0 / 256, at::kBFloat16);
  dout.narrow(2, 0, 256).fill_(1.0);
  const at::Tensor out = CappedAttention(q, k, v, mask, {.scale = 1.0, .softcap = 2.0});
  const std::vector<at::Tensor> found = torch::autograd::grad({out}, {k, v}, {dout});
  EXPECT_EQ(found[1].scalar_type(), at::kBFloat16);
  EXPECT_TRUE(found[1].select(2, 0).eq(264.0).all().item<bool>()) << found[1].select(2, 0);
}

TEST(Attention, LayersHaveTheirOwnWindows) {
  ModelConfig config = OneLayer(20, 8);
  config.num_hidden_layers = 3;
  config.sliding_layers = {true, false, true};
  const data::RowPass tree = RandomTreePass(150, 7, 29, 40);
  for (const data::RowPass& pass : {tree, PlainPass(2, 50, 1)}) {
    const Inputs in = MakeInputs(pass.batch * pass.length, 4, 2, 8);
    const auto attention = MakePassAttention(pass, config.Attention(), at::kDouble, at::kCPU);
    for (std::int64_t layer = 0; layer < 3; ++layer) {
      const at::Tensor found = (*attention)(layer, in.q, in.k, in.v);
      const at::Tensor wanted = NaiveAttention(in.q, in.k, in.v, Visible(pass, layer == 1 ? 0 : 20));
      EXPECT_LT(RelativeError(found, wanted), 1e-12) << layer;
    }
  }
}

TEST(Attention, PaddedRowsAreCausal) {
  ExpectEqualToNaive(PlainPass(1, 50, 1), 0, 4, 2, 8);
  ExpectEqualToNaive(PlainPass(5, 13, 1), 0, 4, 2, 8);
  ExpectEqualToNaive(PlainPass(5, 13, 1), 4, 4, 2, 8);
}

TEST(Attention, OneBranchDoesNotSeeAnother) {
  // Trunk 0..9, then branches of 40 rows each.
  data::RowPass pass;
  pass.length = pass.rows = 10 + 3 * 40;
  for (std::int32_t row = 0; row < 130; ++row) {
    const std::int32_t branch = (row - 10) / 40;
    pass.position.push_back(row < 10 ? row : 10 + (row - 10) % 40);
    pass.end.push_back(row < 10 ? 130 : 10 + 40 * (branch + 1));
    pass.token.push_back(0);
  }
  for (const at::ScalarType dtype : {at::kFloat, at::kDouble}) {
    const Inputs in = MakeInputs(130, 4, 2, 8, dtype);
    Inputs changed = {in.q.detach().clone(), in.k.detach().clone(), in.v.detach().clone()};
    for (at::Tensor* tensor : {&changed.q, &changed.k, &changed.v}) tensor->narrow(0, 50, 40).mul_(-7.0);
    const auto attention = MakePassAttention(pass, OneLayer(0, 8).Attention(), dtype, at::kCPU);
    const at::Tensor before = (*attention)(0, in.q, in.k, in.v);
    const at::Tensor after = (*attention)(0, changed.q, changed.k, changed.v);
    for (const std::int64_t begin : {0, 10, 90}) {
      const std::int64_t rows = begin == 0 ? 10 : 40;
      EXPECT_TRUE(at::equal(before.narrow(0, begin, rows), after.narrow(0, begin, rows))) << begin;
    }
    EXPECT_FALSE(at::equal(before.narrow(0, 50, 40), after.narrow(0, 50, 40)));
  }
}

}  // namespace
}  // namespace plural::trainer
