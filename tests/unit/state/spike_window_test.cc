#include "trainer/state/spike_window.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <random>
#include <vector>

#include "trainer/base/error.h"
#include "trainer/state/train_state.h"

namespace plural::trainer {
namespace {

struct Step {
  double loss, grad_norm;
};

TrainState State() {
  std::vector<dist::NamedTensor> tensors = {{"w", at::zeros({2})}};
  tensors[0].tensor.set_requires_grad(true);
  return {std::move(tensors), {}};
}

// Falling losses and norms that spread over a factor of four, and some steps twenty times as large.
std::vector<Step> Series(std::int64_t steps, const std::vector<std::int64_t>& spikes) {
  std::mt19937 draw(3);
  std::uniform_real_distribution<double> spread(0.5, 2.0);
  std::vector<Step> series;
  for (std::int64_t i = 0; i < steps; ++i) {
    const double level = 1.0 + 3.0 * std::exp(-0.01 * static_cast<double>(i));
    series.push_back({level, spread(draw)});
  }
  for (const std::int64_t at : spikes) series.at(static_cast<std::size_t>(at)).grad_norm *= 40.0;
  return series;
}

// The steps that are left out from `begin` on.
std::vector<std::int64_t> Skipped(SpikeWindow& window, const SpikeSettings& settings,
                                  const std::vector<Step>& series, std::size_t begin, std::size_t end) {
  std::vector<std::int64_t> skipped;
  for (std::size_t i = begin; i < end; ++i) {
    if (FindSpike(window, settings, series[i].loss, series[i].grad_norm)) {
      skipped.push_back(static_cast<std::int64_t>(i));
      SkipStep(window);
    } else {
      AcceptStep(window, settings, series[i].loss, series[i].grad_norm);
    }
  }
  return skipped;
}

TEST(SpikeWindow, FindsTheStepsThatStandOutAndNoOther) {
  const std::vector<std::int64_t> spikes = {70, 71, 200, 399};
  SpikeWindow window;
  EXPECT_EQ(Skipped(window, {}, Series(400, spikes), 0, 400), spikes);
  EXPECT_EQ(window.losses.size(), 128U);
  EXPECT_EQ(window.skipped_steps, 4);
  EXPECT_EQ(window.skipped_in_row, 1);
}

TEST(SpikeWindow, JudgesNothingBeforeHalfTheWindow) {
  const SpikeSettings settings{.window_steps = 7, .factor = 2.0};
  SpikeWindow window;
  for (int i = 0; i < 3; ++i) {
    EXPECT_FALSE(FindSpike(window, settings, 1.0, 1e9)) << i;
    AcceptStep(window, settings, 1.0, 1.0);
  }
  EXPECT_FALSE(FindSpike(window, settings, 1.0, 1e9));
  AcceptStep(window, settings, 1.0, 1.0);
  EXPECT_TRUE(FindSpike(window, settings, 1.0, 1e9));
}

TEST(SpikeWindow, TheMedianIsOfTheLastSteps) {
  const SpikeSettings settings{.window_steps = 4, .factor = 3.0};
  SpikeWindow window;
  for (const double norm : {100.0, 100.0, 1.0, 5.0, 2.0, 3.0}) AcceptStep(window, settings, 1.0, norm);
  EXPECT_EQ(window.grad_norms, (std::vector<double>{1.0, 5.0, 2.0, 3.0}));
  EXPECT_FALSE(FindSpike(window, settings, 1.0, 7.5)) << "three times 2.5 is no spike";
  const auto spike = FindSpike(window, settings, 1.0, 7.6);
  ASSERT_TRUE(spike);
  EXPECT_EQ(spike->figure, "grad_norm");
  EXPECT_EQ(spike->median, 2.5);
  EXPECT_EQ(spike->steps, 4);
  // A smaller window of the same numbers.
  EXPECT_EQ(FindSpike(window, {.window_steps = 3, .factor = 3.0}, 1.0, 9.5)->median, 3.0);
}

TEST(SpikeWindow, ALossMayStandOutAndAMedianOfZeroJudgesNothing) {
  const SpikeSettings settings{.window_steps = 4, .factor = 3.0};
  SpikeWindow window;
  for (int i = 0; i < 4; ++i) AcceptStep(window, settings, 0.5, 0.0);
  EXPECT_EQ(FindSpike(window, settings, 1.6, 1.0)->figure, "loss");
  EXPECT_FALSE(FindSpike(window, settings, 1.4, 1.0));
}

TEST(SpikeWindow, NumbersThatAreNotFiniteNeverEnter) {
  SpikeWindow window;
  for (const double bad : {std::nan(""), std::numeric_limits<double>::infinity()}) {
    AcceptStep(window, {}, bad, 1.0);
    AcceptStep(window, {}, 1.0, bad);
  }
  EXPECT_TRUE(window.Empty());
}

// Saved and read after any step, it decides the same, to the bit.
TEST(SpikeWindow, AResumeInTheMiddleDecidesTheSame) {
  const SpikeSettings settings{.window_steps = 16, .factor = 3.0};
  const std::vector<Step> series = Series(80, {20, 21, 50, 79});
  SpikeWindow whole;
  const std::vector<std::int64_t> expected = Skipped(whole, settings, series, 0, series.size());
  ASSERT_GE(expected.size(), 4U);
  for (std::size_t stop = 0; stop < series.size(); ++stop) {
    TrainState before = State(), after = State();
    std::vector<std::int64_t> found = Skipped(before.spikes, settings, series, 0, stop);
    StateFromJson(nlohmann::json::parse(StateToJson(before).dump()), "saved", after);
    for (const std::int64_t step : Skipped(after.spikes, settings, series, stop, series.size())) {
      found.push_back(step);
    }
    EXPECT_EQ(found, expected) << stop;
    EXPECT_EQ(after.spikes.grad_norms, whole.grad_norms);
    EXPECT_EQ(after.spikes.skipped_in_row, whole.skipped_in_row);
  }
}

TEST(SpikeWindow, StatesWithoutOneAreAsBeforeAndDamagedOnesAreRefused) {
  TrainState state = State();
  nlohmann::json json = StateToJson(state);
  EXPECT_FALSE(json.contains("guard"));
  AcceptStep(state.spikes, {}, 1.0 / 3.0, 0.1);
  StateFromJson(json, "saved", state);  // as an earlier version wrote it
  EXPECT_TRUE(state.spikes.Empty());
  AcceptStep(state.spikes, {}, 1.0 / 3.0, 0.1);
  json = StateToJson(state);
  for (const char* damage : {R"({"losses": []})", R"({"losses": ["nan"]})", R"({"losses": [1]})",
                             R"({"skipped_steps": -1})", R"({"grad_norms": null})"}) {
    nlohmann::json damaged = json;
    damaged["guard"].update(nlohmann::json::parse(damage));
    EXPECT_THROW(StateFromJson(damaged, "saved", state), ExitError) << damage;
  }
}

}  // namespace
}  // namespace plural::trainer
