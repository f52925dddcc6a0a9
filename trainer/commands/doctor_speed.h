// What the report of `plural doctor` says about speed.
//
// Owns: the measurement on a rank, its text, the note on ranks that are slow, the report's last line. Does
// not own: the report (doctor.h). Thread rule: main thread.
#pragma once

#include <string>
#include <vector>

#include "dist/world.h"

namespace plural::trainer {

// FLOP/s of large multiplies.
struct RankSpeed {
  double cpu = 0.0;         // in fp32, with the rank's threads
  double gpu = 0.0;         // in bf16, on the rank's GPU; 0: it has none, or
  std::string gpu_problem;  // why that computes nothing
};
// Takes a second, on a GPU seconds with the libraries that it loads. All ranks call it together: those of one
// machine share its memory and its clock.
RankSpeed MeasureSpeed(const dist::World& world);

// "61.2 GFLOP/s", or of ranks that differ "58.0 to 61.2 GFLOP/s".
std::string SpeedText(const std::vector<double>& flops_per_second);

// A note on ranks below half of the fastest, for which the others wait in each step; "" where there is none.
// The speeds are those of all ranks, by rank; `what`: "multiplies".
std::string SlowRankNote(const std::vector<double>& flops_per_second, const std::string& what);

// The last line. `gpus_computing`: ranks whose GPU has computed something.
std::string Verdict(bool faults, std::size_t ranks, std::size_t gpus_computing);

}  // namespace plural::trainer
