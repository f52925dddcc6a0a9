#include "trainer/model/head.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "tests/unit/support/naive_model.h"
#include "trainer/ops/pointwise.h"
#include "trainer/ops/softmax_rows.h"

namespace plural::trainer {
namespace {

using namespace testing;  // NOLINT: the test's own vocabulary

constexpr std::int64_t kVocab = 37, kHidden = 11, kRows = 19, kRank = 3;

struct Setting {
  at::Tensor hidden;
  VocabularyHead head;
  RowNumbers source;
  EdgeList edges{0, {}, {}, at::kCPU};
  at::Tensor d_log_p, d_log_one_minus_p;  // what a loss would send back

  std::vector<at::Tensor> Inputs() const {
    return {hidden, head.linear.weight_OI, head.linear.lora.a_KI, head.linear.lora.b_OK};
  }
  at::Tensor SourceHidden() const { return hidden.index_select(0, source.on_device); }
};

// Every third row predicts nothing; the others one to three tokens. Logits are about `spread` wide.
Setting MakeSetting(double spread, double softcap = 0.0) {
  Setting s;
  s.head.softcap = softcap;
  s.hidden = RandomTensor({kRows, kHidden}, 1).set_requires_grad(true);
  s.head.linear.weight_OI = (RandomTensor({kVocab, kHidden}, 2) * spread).set_requires_grad(true);
  s.head.linear.lora = {RandomTensor({kRank, kHidden}, 3).set_requires_grad(true),
                        RandomTensor({kVocab, kRank}, 4).set_requires_grad(true), 1.7, 0.0};
  std::vector<std::int64_t> row, edge_row, target;
  for (std::int64_t r = 0; r < kRows; ++r) {
    if (r % 3 == 1) continue;
    for (std::int64_t e = 0; e <= r % 3; ++e) {
      edge_row.push_back(static_cast<std::int64_t>(row.size()));
      target.push_back((5 * r + 11 * e) % kVocab);
    }
    row.push_back(r);
  }
  s.source = RowNumbers(row, at::kCPU);
  s.edges = EdgeList(static_cast<std::int64_t>(row.size()), edge_row, target, at::kCPU);
  const auto edges = static_cast<std::int64_t>(target.size());
  s.d_log_p = RandomTensor({edges}, 5);
  s.d_log_one_minus_p = RandomTensor({edges}, 6);
  s.d_log_one_minus_p[3] = 0.0;
  return s;
}

struct Result {
  at::Tensor log_p, log_one_minus_p;
  std::vector<at::Tensor> gradients;
};

Result RunHead(const Setting& s, const HeadSettings& settings) {
  const EdgeLogProbs out = EdgeLogProb(s.SourceHidden(), s.head, s.edges, settings);
  const at::Tensor loss = (out.log_p * s.d_log_p + out.log_one_minus_p * s.d_log_one_minus_p).sum();
  return {out.log_p, out.log_one_minus_p, torch::autograd::grad({loss}, s.Inputs())};
}

Result RunNaive(const Setting& s) {
  const at::Tensor x = s.SourceHidden();
  at::Tensor z = at::matmul(x, s.head.linear.weight_OI.t()) +
                 s.head.linear.lora.scale *
                     at::matmul(at::matmul(x, s.head.linear.lora.a_KI.t()), s.head.linear.lora.b_OK.t());
  z = NaiveCap(z, s.head.softcap);
  const at::Tensor log_softmax = at::log_softmax(z, 1);
  const at::Tensor log_p = log_softmax.index({s.edges.edge_row, s.edges.edge_target});
  // log(1-p) as the logsumexp of the others minus that of all.
  at::Tensor others =
      z.index_select(0, s.edges.edge_row)
          .scatter(1, s.edges.edge_target.unsqueeze(1), -std::numeric_limits<double>::infinity());
  const at::Tensor lse = at::logsumexp(z, 1).index_select(0, s.edges.edge_row);
  const at::Tensor log_one_minus_p = at::logsumexp(others, 1) - lse;
  const at::Tensor loss = (log_p * s.d_log_p + log_one_minus_p * s.d_log_one_minus_p).sum();
  return {log_p, log_one_minus_p, torch::autograd::grad({loss}, s.Inputs())};
}

TEST(EdgeLogProb, EqualsLogSoftmaxAndItsGradientsForEveryChunkSize) {
  // Spread 8 makes some targets all but certain: both ways to log(1-p) are used.
  for (const auto& [spread, softcap] : {std::pair(1.0, 0.0), {8.0, 0.0}, {1.0, 1.5}, {8.0, 10.0}}) {
    const Setting s = MakeSetting(spread, softcap);
    const Result wanted = RunNaive(s);
    for (const std::int64_t chunk_rows : {1, 2, 5, 13, 256}) {
      const Result found = RunHead(s, {.chunk_rows = chunk_rows});
      // Values are logs of sums of 37 terms, gradients sums of at most 13 rows: a few hundred roundings.
      EXPECT_LT(RelativeError(found.log_p, wanted.log_p), 1e-13);
      EXPECT_LT(RelativeError(found.log_one_minus_p, wanted.log_one_minus_p), 1e-13);
      for (std::size_t i = 0; i < found.gradients.size(); ++i) {
        EXPECT_LT(RelativeError(found.gradients[i], wanted.gradients[i]), 1e-12)
            << "input " << i << ", " << chunk_rows << " rows a chunk, spread " << spread << ", cap "
            << softcap;
      }
    }
  }
}

TEST(EdgeLogProb, AtATemperatureEqualsLogSoftmaxOfScaledLogits) {
  constexpr double kB = 0.7;
  for (const double softcap : {0.0, 3.0}) {
    const Setting s = MakeSetting(4.0, softcap);
    const at::Tensor x = s.SourceHidden();
    at::Tensor z = at::matmul(x, s.head.linear.weight_OI.t()) +
                   s.head.linear.lora.scale *
                       at::matmul(at::matmul(x, s.head.linear.lora.a_KI.t()), s.head.linear.lora.b_OK.t());
    z = NaiveCap(z, softcap);
    const at::Tensor log_q = at::log_softmax(z / kB, 1);
    const at::Tensor wanted_E = log_q.index({s.edges.edge_row, s.edges.edge_target});
    const at::Tensor entropy_E = -(log_q.exp() * log_q).sum(1).index_select(0, s.edges.edge_row);
    const at::Tensor log_p = at::log_softmax(z, 1).index({s.edges.edge_row, s.edges.edge_target});
    const auto gradients = [&](const at::Tensor& tempered, const at::Tensor& plain) {
      const at::Tensor loss = (tempered * s.d_log_one_minus_p + plain * s.d_log_p).sum();
      return torch::autograd::grad({loss}, s.Inputs());
    };
    const std::vector<at::Tensor> wanted = gradients(wanted_E, log_p);
    for (const std::int64_t chunk_rows : {2, 256}) {
      const EdgeLogProbs out =
          EdgeLogProb(s.SourceHidden(), s.head, s.edges, {.chunk_rows = chunk_rows, .temperature = kB});
      // Sums of 37 terms and of at most 13 rows, as above; logits are divided by b.
      EXPECT_LT(RelativeError(out.tempered_log_p_E, wanted_E), 1e-13);
      EXPECT_LT(RelativeError(out.tempered_entropy_nats_E, entropy_E), 1e-13);
      EXPECT_FALSE(out.tempered_entropy_nats_E.requires_grad());
      const std::vector<at::Tensor> found = gradients(out.tempered_log_p_E, out.log_p);
      for (std::size_t i = 0; i < found.size(); ++i) {
        EXPECT_LT(RelativeError(found[i], wanted[i]), 1e-12) << "input " << i << ", cap " << softcap;
      }
    }
  }
}

TEST(EdgeLogProb, RecomputedLogitsGiveTheSameBitsAsKeptOnes) {
  const Setting s = MakeSetting(2.0);
  const std::int64_t chunk_bytes = 4 * kVocab * static_cast<std::int64_t>(sizeof(double));
  const Result kept = RunHead(s, {.chunk_rows = 4, .keep_bytes = 1 << 20});
  for (const std::int64_t keep_bytes : {std::int64_t{0}, chunk_bytes, 2 * chunk_bytes}) {
    const Result found = RunHead(s, {.chunk_rows = 4, .keep_bytes = keep_bytes});
    EXPECT_TRUE(at::equal(found.log_p, kept.log_p));
    for (std::size_t i = 0; i < found.gradients.size(); ++i) {
      EXPECT_TRUE(at::equal(found.gradients[i], kept.gradients[i])) << "input " << i;
    }
  }
}

TEST(HeadChunks, OnAGpuAreCutByTheBytesOfARow) {
  for (const std::int64_t row_bytes : {4 * 32000, 4 * 152064}) {
    EXPECT_EQ(HeadChunksOn(at::kCPU, row_bytes).rows, 256);
    EXPECT_EQ(HeadChunksOn(at::kCPU, row_bytes).keep_bytes, 256 << 20);
  }
  EXPECT_EQ(HeadChunksOn(at::kCUDA, 4 * 32000).rows, 4096);  // 500 MiB
  EXPECT_EQ(HeadChunksOn(at::kCUDA, 4 * 152064).rows, 768);  // 446 MiB
  EXPECT_EQ(HeadChunksOn(at::kCUDA, 8 << 20).rows, 256);     // 2 GiB: no fewer than on a CPU
}

TEST(EdgeLogProb, KeepsTheDigitsOfOneMinusPInSinglePrecision) {
  // One logit above 36 equal ones by `gap`: 1 - p = 36 / (36 + exp(gap)).
  for (const double gap : {1.0, 10.0, 20.0, 30.0, 60.0}) {
    VocabularyHead head;
    head.linear.weight_OI = at::zeros({kVocab, 1});
    head.linear.weight_OI[7][0] = gap;
    const EdgeLogProbs out = EdgeLogProb(at::ones({1, 1}), head, EdgeList(1, {0}, {7}, at::kCPU));
    const double wanted = std::log(36.0) - (gap + std::log1p(36.0 * std::exp(-gap)));
    // The logits are exact; what is left is one fp32 sum of 36 ones and one exponential.
    EXPECT_NEAR(out.log_one_minus_p.item<double>(), wanted, 1e-6) << "gap " << gap;
    EXPECT_NEAR(out.log_p.item<double>(), -std::log1p(36.0 * std::exp(-gap)),
                1e-6 * std::log1p(36.0 * std::exp(-gap)))
        << "gap " << gap;
  }
}

TEST(EdgeLogProb, OverflowingOddsOfAnUnpenalisedEdgeStayOutOfTheGradient) {
  VocabularyHead head;
  head.linear.weight_OI = at::zeros({kVocab, 1});
  head.linear.weight_OI[7][0] = 2000.0;  // p / (1 - p) = inf, even in fp64
  const at::Tensor hidden = at::ones({1, 1}).set_requires_grad(true);
  const EdgeLogProbs out = EdgeLogProb(hidden, head, EdgeList(1, {0}, {7}, at::kCPU));
  const at::Tensor gradient = torch::autograd::grad({out.log_p.sum()}, {hidden})[0];
  EXPECT_EQ(gradient.item<float>(), 0.0F);
}

TEST(EdgeLogProb, RefusesEdgesOutOfOrderAndOfOtherRows) {
  EXPECT_THROW(EdgeList(3, {0, 2, 1}, {4, 5, 6}, at::kCPU), std::logic_error);
  EXPECT_THROW(EdgeList(3, {0, 3}, {4, 5}, at::kCPU), std::logic_error);
  EXPECT_THROW(EdgeList(3, {-1, 2}, {4, 5}, at::kCPU), std::logic_error);
  EXPECT_EQ(EdgeList(4, {0, 2, 2}, {4, 5, 6}, at::kCPU).first_edge,
            (std::vector<std::int64_t>{0, 1, 1, 3, 3}));
  const Setting s = MakeSetting(1.0);
  EXPECT_THROW(EdgeLogProb(s.hidden, s.head, s.edges), std::logic_error);  // of all rows
}

TEST(EdgeLogProb, FrozenHeadGetsNoGradient) {
  Setting s = MakeSetting(1.0);
  s.head.linear.weight_OI.set_requires_grad(false);
  const EdgeLogProbs out = EdgeLogProb(s.SourceHidden(), s.head, s.edges);
  out.log_p.sum().backward();
  EXPECT_FALSE(s.head.linear.weight_OI.grad().defined());
  EXPECT_TRUE(s.head.linear.lora.a_KI.grad().defined());
}

// Each of the formula's terms against autograd of the loss it belongs to.
struct Coefficients {
  double a = 0.0, b = 1.0, c = 0.0, t = 0.0;
};

at::Tensor GradientOfRow(const at::Tensor& z_V, std::int64_t target, const Coefficients& k) {
  at::Tensor z = z_V.detach().clone().unsqueeze(0);
  const RowStatistics rows = StatisticsOfRows(z);
  const at::Tensor row = at::tensor({std::int64_t{0}}), column = at::tensor({target});
  const EdgeStatistics edges = StatisticsOfEdges(z, row, column);
  const auto scalar = [](double value) { return at::full({1}, value, at::kDouble); };
  RowGradient(z, rows.lse_R, {scalar(k.a), scalar(k.b), scalar(k.c)},
              {row, column, scalar(k.t), edges.log_one_minus_p_E});
  return z.squeeze(0);
}

TEST(RowGradient, GivesTheFormulasKnownValues) {
  // Logits [2, 1, 0, -1], target 1: computed independently, six digits each.
  const at::Tensor z = at::tensor({2.0, 1.0, 0.0, -1.0}, at::kDouble);
  const double p = 0.23688281808991013;
  const auto expect = [](const at::Tensor& found, std::vector<double> wanted) {
    for (std::int64_t i = 0; i < 4; ++i) EXPECT_NEAR(found[i].item<double>(), wanted[i], 6e-7) << i;
  };
  expect(GradientOfRow(z, 1, {.c = 1.0, .t = -1.0}), {0.643914, -0.763117, 0.087144, 0.032059});
  expect(GradientOfRow(z, 1, {.c = -p / (1 - p), .t = p / (1 - p)}),
         {-0.199880, 0.236883, -0.027051, -0.009951});
  expect(GradientOfRow(z, 1, {.a = 1.0, .b = 0.7, .t = -1.0}), {0.762865, -0.817179, 0.043813, 0.010500});
}

TEST(RowGradient, EqualsAutogradOfAllTermsTogether) {
  const at::Tensor z = (RandomTensor({kVocab}, 8) * 4.0).set_requires_grad(true);
  const at::Tensor log_p = at::log_softmax(z, 0);
  // 0.3 (-b log p_b,y) at b = 0.6, 0.8 (-log p_y).
  const at::Tensor loss = -0.3 * 0.6 * at::log_softmax(z / 0.6, 0)[5] - 0.8 * log_p[5];
  const at::Tensor wanted = torch::autograd::grad({loss}, {z})[0];
  const at::Tensor found = GradientOfRow(z, 5, {.a = 0.3, .b = 0.6, .c = 0.8, .t = -1.1});
  EXPECT_LT(RelativeError(found, wanted), 1e-13);
}

TEST(RowGradient, KeepsTheTargetsDigitsWherePIsNearOne) {
  // -log(1-p) with 1 - p = 3 exp(-14): its gradient at the target is p, whatever rho = p / (1-p) is.
  const at::Tensor z = at::tensor({0.0, 14.0, 0.0, 0.0}, at::kFloat);
  const double rho = std::exp(14.0) / 3.0;
  const at::Tensor found = GradientOfRow(z, 1, {.c = -rho, .t = rho});
  EXPECT_NEAR(found[1].item<double>(), 1.0 / (1.0 + 1.0 / rho), 1e-6);
  EXPECT_NEAR(found[0].item<double>(), -1.0 / 3.0, 1e-5);
}

// What serves a GPU, run on the CPU beside the host loops.
TEST(Operators, EqualTheHostLoops) {
  for (const double softcap : {0.0, 40.0}) {
    at::Tensor z = RandomTensor({6, kVocab}, 8) * 6.0;
    z[1][4] += 90.0;           // p is 1 in fp64
    z[2][5] = z[2][6] = 40.0;  // two tokens share p = 1/2
    z[3][7] = 40.001;          // p just above 1/2
    z[3][9] = 40.0;
    if (softcap > 0.0) SoftCapInPlace(z, softcap);
    const at::Tensor before = z.clone();
    std::vector<std::int64_t> row_E, target_E;
    for (std::int64_t row = 0; row < z.size(0); ++row) {
      for (const std::int64_t target : {4, 5, 6, 7, 9}) {
        row_E.push_back(row);
        target_E.push_back(target);
      }
    }
    const at::Tensor row = at::tensor(row_E), target = at::tensor(target_E);

    const RowStatistics rows = StatisticsOfRows(z), rows_too = operators::StatisticsOfRows(z);
    EXPECT_LT(RelativeError(rows_too.lse_R, rows.lse_R), 1e-14);
    EXPECT_LT(RelativeError(rows_too.entropy_nats_R, rows.entropy_nats_R), 1e-13);
    const EdgeStatistics edges = StatisticsOfEdges(z, row, target);
    const EdgeStatistics edges_too = operators::StatisticsOfEdges(z, row, target);
    EXPECT_TRUE(at::equal(z, before)) << "a hidden logit did not come back";
    EXPECT_TRUE(at::equal(edges.lse_R, rows.lse_R)) << "without the entropy it has other bits";
    // Each in its own size: log p and log(1 - p) are between 1e-30 and 100.
    EXPECT_LT(((edges_too.log_p_E - edges.log_p_E) / edges.log_p_E).abs().max().item<double>(), 1e-12);
    EXPECT_LT(((edges_too.log_one_minus_p_E - edges.log_one_minus_p_E) / edges.log_one_minus_p_E)
                  .abs()
                  .max()
                  .item<double>(),
              1e-12);

    const RowCoefficients k{RandomTensor({6}, 1), RandomTensor({6}, 2).abs() + 0.5, RandomTensor({6}, 3)};
    const EdgeCoefficients at_edges{row, target, RandomTensor({row.size(0)}, 5), edges.log_one_minus_p_E};
    at::Tensor gradient = z.clone(), gradient_too = z.clone();
    RowGradient(gradient, rows.lse_R, k, at_edges, softcap);
    operators::RowGradient(gradient_too, rows.lse_R, k, at_edges, softcap);
    EXPECT_LT(RelativeError(gradient_too, gradient), 1e-13) << "cap " << softcap;
  }
}

}  // namespace
}  // namespace plural::trainer
