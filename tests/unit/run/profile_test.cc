#include "trainer/run/profile.h"

#include <gtest/gtest.h>

#include <map>

#include "trainer/plan/model_flops.h"
#include "trainer/run/time_by_part.h"

namespace plural::trainer {
namespace {

std::map<std::string, std::pair<double, double>> Nanoseconds(const TimeByPart& time) {
  std::map<std::string, std::pair<double, double>> by_part;
  for (const auto& row : time.rows) by_part[row.part] = {1e9 * row.seconds, 1e9 * row.multiply_seconds};
  return by_part;
}

// One step from 100 to 200:
//   data 100-110 | linear 120-150 { aten::mm 125-135, lora 135-145 { aten::mm 136-144 } } | attention 160-190
// and the same parts outside of a step, which count for nothing.
std::vector<RecordedEvent> OneStep() {
  return {{"lora", 135, 145},          {"aten::mm", 136, 144},  {"step", 100, 200},    {"linear", 120, 150},
          {"aten::mm", 125, 135},      {"attention", 160, 190}, {"data", 100, 110},    {"head", 210, 220},
          {"aten::softmax", 165, 170}, {"optimizer", 50, 60},   {"aten::mm", 212, 215}};
}

TEST(Profile, EveryInstantOfAStepBelongsToItsInnermostPart) {
  const TimeByPart time = AddUpParts(OneStep());
  EXPECT_EQ(time.steps, 1);
  EXPECT_NEAR(1e9 * time.seconds, 100, 1e-6);
  const auto parts = Nanoseconds(time);
  const auto expect = [&](const std::string& part, double all, double multiply) {
    EXPECT_NEAR(parts.at(part).first, all, 1e-6) << part;
    EXPECT_NEAR(parts.at(part).second, multiply, 1e-6) << part;
  };
  expect("data", 10, 0);
  expect("linear", 20, 10);  // 30 less the adapter's 10
  expect("lora", 10, 8);
  expect("attention", 30, 0);
  expect("other", 30, 0);
  expect("head", 0, 0);
  expect("optimizer", 0, 0);
  EXPECT_EQ(time.rows.back().part, "other");
  EXPECT_EQ(time.rows.front().part, "attention");
}

TEST(Profile, PartsAreTheWholeStepEvenWhereClocksDiffer) {
  // A child that ends a tick behind its parent, an empty event, two steps.
  const TimeByPart time = AddUpParts({{"step", 0, 100},
                                      {"head", 50, 101},
                                      {"aten::mm", 60, 102},
                                      {"norm", 10, 10},
                                      {"step", 101, 131},
                                      {"ScaledDotProductFlashAttentionForCpuBackward0", 111, 121}});
  EXPECT_EQ(time.steps, 2);
  EXPECT_NEAR(1e9 * time.seconds, 130, 1e-6);
  const auto parts = Nanoseconds(time);
  EXPECT_NEAR(parts.at("head").first, 50, 1e-6);
  EXPECT_NEAR(parts.at("head").second, 40, 1e-6);
  EXPECT_NEAR(parts.at("attention").first, 10, 1e-6);
  double sum = 0.0;
  for (const auto& row : time.rows) sum += row.seconds;
  EXPECT_NEAR(sum, time.seconds, 1e-15);
}

// Thread 1: a step with a linear layer's product; thread 2: backward, in no step, with attention inside.
TEST(Profile, KernelsBelongToThePartThatLaunchedThem) {
  const std::vector<RecordedEvent> host = {{"step", 0, 100, 1, 0},       {"linear", 10, 30, 1, 0},
                                           {"aten::mm", 12, 20, 1, 7},   {"lora", 20, 28, 1, 0},
                                           {"aten::mm", 21, 25, 1, 8},   {"aten::add", 40, 50, 1, 9},
                                           {"Backward", 12, 90, 2, 10},  {"attention", 15, 60, 2, 0},
                                           {"aten::bmm", 20, 22, 2, 11}, {"aten::copy_", 21, 22, 2, 12}};
  const DeviceTime time = AddUpDevice(host, {{"gemm", 500, 7},
                                             {"gemm", 100, 8},
                                             {"add", 20, 9},
                                             {"sum", 7, 10},
                                             {"gemm", 40, 11},
                                             {"copy", 30, 12},
                                             {"nccl", 3, 0},
                                             {"lost", 2, 99}});
  std::map<std::string, double> parts;
  for (const auto& row : time.parts) parts[row.name] = 1e9 * row.seconds;
  EXPECT_NEAR(parts.at("linear"), 500, 1e-6);
  EXPECT_NEAR(parts.at("lora"), 100, 1e-6);
  EXPECT_NEAR(parts.at("attention"), 70, 1e-6);
  EXPECT_NEAR(parts.at("other"), 20 + 7 + 3 + 2, 1e-6);
  EXPECT_EQ(parts.count("step"), 0U);
  EXPECT_NEAR(1e9 * time.seconds, 702, 1e-6);
  EXPECT_EQ(time.parts.front().name, "linear");
  EXPECT_EQ(time.parts.back().name, "other");
  ASSERT_EQ(time.kernels.size(), 6U);
  EXPECT_EQ(time.kernels[0].name, "gemm");
  EXPECT_EQ(time.kernels[0].count, 3);
  EXPECT_NEAR(1e9 * time.kernels[0].seconds, 640, 1e-6);
}

TEST(Profile, TheSpeedOfMultipliesIsPositive) { EXPECT_GT(MeasureMultiplyPeak(at::kFloat, at::kCPU), 1e8); }

ModelConfig Small() {
  ModelConfig config;
  config.vocab_size = 10;
  config.hidden_size = 4;
  config.intermediate_size = 6;
  config.num_hidden_layers = 2;
  config.num_attention_heads = 2;
  config.num_key_value_heads = 1;
  config.head_dim = 2;
  return config;
}

// A root with two children; edges leave the root and, twice, its first child. One that no loss reads leaves
// the second.
data::RowPass Tree() {
  data::RowPass pass;
  pass.length = pass.rows = 3;
  pass.token = {1, 2, 3};
  pass.position = {0, 1, 1};
  pass.end = {3, 2, 3};
  pass.path_key = {7, 8, 9};
  pass.edges = {{0, 2, 1.0, 0.0}, {1, 4, 1.0, 0.0}, {1, 5, 0.0, 1.0}, {2, 6, 0.0, 0.0}};
  return pass;
}

TEST(ModelFlops, OfAnAdapter) {
  // A layer's inputs x outputs: q 16, k 8, v 8; o 16, gate 24, up 24, down 24. 3 rows, 2 with an edge,
  // 5 visible pairs.
  const double head = 2 * 2 * 2 * 40;
  const double first = 1 * 2 * 3 * 32 + 2 * 2 * 3 * 88;  // the embedding needs no gradient
  const double last = 2 * 2 * 3 * 32 + 2 * 2 * 2 * 88;   // two rows go on
  const double adapters = 2 * 6 * 3 * 1 * (4 + 4);
  const double attention = 2 * 12 * 5 * 4;
  const AdapterSettings adapter{.rank = 1, .targets = {"q_proj"}};
  EXPECT_EQ(ModelFlops(Small(), &adapter, Tree()), head + first + last + adapters + attention);
}

TEST(ModelFlops, OfAllWeights) {
  const double head = 3 * 2 * 2 * 40;
  const double first = 3 * 2 * 3 * 120;
  const double last = 3 * 2 * 3 * 32 + 3 * 2 * 2 * 88;
  EXPECT_EQ(ModelFlops(Small(), nullptr, Tree()), head + first + last + 2 * 12 * 5 * 4);
}

TEST(ModelFlops, AWindowHidesPairsAndPaddingCountsNothing) {
  const double open = ModelFlops(Small(), nullptr, Tree());
  ModelConfig windowed = Small();
  windowed.sliding_window = 1;
  EXPECT_EQ(open - ModelFlops(windowed, nullptr, Tree()), 2 * 12 * (5 - 3) * 4);
  data::RowPass padded = Tree();
  padded.length = 4;
  padded.token.push_back(0);
  padded.position.push_back(0);
  padded.path_key.push_back(0);
  EXPECT_EQ(ModelFlops(Small(), nullptr, padded), open);
}

}  // namespace
}  // namespace plural::trainer
