// Train lines: what a step and an epoch write to metrics.jsonl.
//
// Owns: keys, their order and units. Does not own: the file (metrics.h), what is measured (train_step.h).
// Thread rule: pure functions.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "trainer/method/method.h"
#include "trainer/run/metrics.h"
#include "trainer/run/train_step.h"
#include "trainer/state/train_state.h"

namespace plural::trainer {

// The method's figures in a line of `kind`.
void AddFigures(const Method& method, const MethodSettings& settings, Lines kind, const Sums& sums,
                MetricsLine& line);

// "warn", "skip" or "stop".
const char* ActionOn(const StepFigures& figures);
// The line of a step that stands out. `groups`: all that were in it, over all ranks.
MetricsLine SpikeLine(std::int64_t step, const StepFigures& figures, const std::vector<std::int64_t>& groups);
// The same for people: "step 3 stands out: its gradient norm 12 is ...".
std::string SpikeText(std::int64_t step, const StepFigures& figures, const std::vector<std::int64_t>& groups);

struct StepTimes {
  std::int64_t step = 0, epoch = 0;
  double seconds = 0.0, data_wait_seconds = 0.0;
  std::int64_t host_memory_bytes = 0;  // resident, of rank 0
};
MetricsLine StepLine(const Method& method, const MethodSettings& settings, const StepFigures& figures,
                     const StepTimes& times);

// A validation's figures, for people.
std::string ValidationText(std::int64_t step, const MetricsLine& figures);

// Means over an epoch, each group measured before its step. `position`: before the next epoch begins.
MetricsLine EpochLine(const Method& method, const MethodSettings& settings, const Position& position);

}  // namespace plural::trainer
