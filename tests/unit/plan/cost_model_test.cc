#include "trainer/plan/cost_model.h"

#include <gtest/gtest.h>

#include <vector>

#include "data/labelling.h"
#include "data/tree.h"

namespace plural::trainer {
namespace {

// 56 M parameters, Mistral's proportions.
ModelConfig Shape() {
  ModelConfig config;
  config.hidden_size = 512;
  config.intermediate_size = 1376;
  config.num_hidden_layers = 8;
  config.num_attention_heads = 8;
  config.num_key_value_heads = 4;
  config.head_dim = 64;
  config.vocab_size = 32000;
  return config;
}

constexpr std::int64_t kFp64 = 8;  // bytes

// `count` responses of `length` tokens behind one prompt, different from the second token on.
std::vector<data::LabelledSequence> Sequences(int count, int prompt, int length) {
  std::vector<data::LabelledSequence> sequences(static_cast<std::size_t>(count));
  for (int s = 0; s < count; ++s) {
    auto& sequence = sequences[static_cast<std::size_t>(s)];
    sequence.prefix = std::vector<data::Token>(static_cast<std::size_t>(prompt), 7);
    sequence.response.assign(static_cast<std::size_t>(length), 1000 + s);
    sequence.response[0] = 5;
    sequence.likelihood.assign(static_cast<std::size_t>(length), 1.0);
    sequence.unlikelihood.assign(static_cast<std::size_t>(length), 0.0);
  }
  return sequences;
}

TEST(CostModel, CountsMultiplyAddsOfForwardAndBackward) {
  const data::CostModel adapter = CostOf(Shape(), false, 4, at::kCUDA);
  const double weights = 8.0 * (2 * 512 * 512 + 2 * 512 * 256 + 3 * 512 * 1376);  // of all layers
  EXPECT_EQ(adapter.per_row, 2 * weights);
  EXPECT_EQ(CostOf(Shape(), true, 4, at::kCUDA).per_row, 3 * weights);
  EXPECT_EQ(adapter.per_row_pair, 0.0);
  EXPECT_EQ(adapter.per_visible_pair, 7.0 * 8 * 512);
  const data::CostModel masked = CostOf(Shape(), false, kFp64, at::kCUDA);  // no kernel takes it
  EXPECT_EQ(masked.per_row_pair, 7.0 * 8 * 512);
  EXPECT_EQ(masked.per_visible_pair, 0.0);
  ModelConfig odd = Shape();
  odd.head_dim = 60;
  EXPECT_GT(CostOf(odd, false, 4, at::kCUDA).per_row_pair, 0.0);
  EXPECT_EQ(CostOf(Shape(), false, 4, at::kCPU).per_row_pair, 0.0);
  EXPECT_EQ(CostOf(Shape(), false, 4, at::kCPU).per_visible_pair, 7.0 * 8 * 512);
}

// Measured on a prototype with a dense mask: 210 biographies run fastest in trees of 16 targets, as fast
// within 7 % in trees of 8 and 32, and much slower in one.
TEST(CostModel, CutsBiographiesWhereTheyRunFastest) {
  const auto parts = data::CutGroup(Sequences(210, 206, 34), CostOf(Shape(), false, kFp64, at::kCUDA));
  for (const auto& part : parts) {
    EXPECT_GE(part.size(), 12U);
    EXPECT_LE(part.size(), 32U);
  }
}

// Attention that skips what a row does not see gains nothing from a cut: as few trees as the limit allows.
TEST(CostModel, CutsForMemoryAloneWhereAttentionSkips) {
  // 207 rows that all share, 33 of its own a target: 55 targets in 2,048 rows.
  EXPECT_EQ(data::CutGroup(Sequences(210, 206, 34), CostOf(Shape(), false, 4, at::kCPU)).size(), 4U);
  EXPECT_EQ(data::CutGroup(Sequences(210, 206, 34), CostOf(Shape(), false, 4, at::kCUDA)).size(), 1U);
}

// A dialogue of four numbers and four replies stays in one piece.
TEST(CostModel, LeavesSmallGroupsWhole) {
  EXPECT_EQ(data::CutGroup(Sequences(16, 150, 20), CostOf(Shape(), false, kFp64, at::kCUDA)).size(), 1U);
}

TEST(CostModel, NeverExceedsTheMemoryGiven) {
  const std::int64_t megabyte = std::int64_t{1} << 20;
  const data::CostModel cost = CostOf(Shape(), false, 4, at::kCPU, 150 * megabyte);
  // Activations of a row: 8 (10 * 512 + 4 * 1376) floats = 340 kB.
  EXPECT_LT(cost.max_rows, 150 * megabyte / 339968);
  EXPECT_GT(cost.max_rows, 400);
  const auto sequences = Sequences(210, 206, 34);
  for (const auto& part : data::CutGroup(sequences, cost)) {
    std::vector<data::LabelledSequence> chosen;
    for (const int s : part) chosen.push_back(sequences[static_cast<std::size_t>(s)]);
    EXPECT_LE(data::BuildTree(chosen).Rows(), cost.max_rows);
  }
  EXPECT_GT(CostOf(Shape(), false, 4, at::kCUDA).max_rows, CostOf(Shape(), false, 8, at::kCUDA).max_rows);
}

// A kind of device has its own memory to count with, whatever the machine has.
TEST(CostModel, AGpuTakesTreesOfMoreRows) {
  const auto rows = [](at::Device device, std::int64_t gigabytes) {
    return CostOf(Shape(), false, 2, device, gigabytes << 30).max_rows;
  };
  EXPECT_EQ(rows(at::kCUDA, 0), rows(at::kCUDA, 48));
  EXPECT_GT(rows(at::kCUDA, 0), 3 * rows(at::kCUDA, 8));
  EXPECT_EQ(rows(at::kCPU, 0), rows(at::kCPU, 8));
}

// Mistral-7B in bf16: 48 GiB over 32 (10 4096 + 4 14336) values of two bytes.
TEST(CostModel, WithoutAMaskRowsAreWhatActivationsLeave) {
  ModelConfig config = Shape();
  config.hidden_size = 4096;
  config.intermediate_size = 14336;
  config.num_hidden_layers = 32;
  config.head_dim = 128;
  EXPECT_EQ(CostOf(config, false, 2, at::kCUDA).max_rows, 8192);
  config.head_dim = 100;
  EXPECT_LT(CostOf(config, false, 2, at::kCUDA).max_rows, 8192);
}

TEST(RowBudget, IsThatOfTheKindOfDevice) {
  const auto rows = [](std::int64_t asked, at::Device device, std::int64_t bytes = 2,
                       data::Layout layout = data::Layout::kTree, bool units = false) {
    return RowBudgetOf(asked, layout, units, Shape(), bytes, device);
  };
  EXPECT_EQ(rows(0, at::kCPU), 1024);
  EXPECT_EQ(rows(0, at::kCUDA), 8192);
  EXPECT_EQ(rows(0, at::kCUDA, kFp64), 1024);
  EXPECT_EQ(rows(0, at::kCUDA, 2, data::Layout::kPlain), 1024);
  EXPECT_EQ(rows(0, at::kCUDA, 2, data::Layout::kTree, true), 1024);
  EXPECT_EQ(rows(300, at::kCUDA), 300);
  EXPECT_EQ(rows(300, at::kCPU), 300);
}

}  // namespace
}  // namespace plural::trainer
