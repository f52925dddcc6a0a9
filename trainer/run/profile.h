// The profile of a run's steps: a Chrome trace, and a table of where their time went.
//
// Owns: when libtorch's recorder runs, the speed of matrix multiplies that steps are held against, two files
// per rank. Does not own: what the events add up to (time_by_part.h), the scopes (ops/part_scope.h). Thread
// rule: the thread that trains.
//
//   <run folder>/profile/rank-00000.json   trace, for chrome://tracing or ui.perfetto.dev
//                        rank-00000.txt    table
#pragma once

#include <ATen/core/TensorBody.h>

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <string>

#include "dist/collectives.h"
#include "dist/world.h"
#include "trainer/model/decoder.h"
#include "trainer/run/loader.h"

namespace plural::trainer {

// FLOP/s of the fastest of several large multiplies of the kind that training uses, with the threads in use:
// each the mean of ten with random operands behind three (constants cost a GPU less power, and run faster);
// on the CPU of as many as half a second holds.
double MeasureMultiplyPeak(at::ScalarType dtype, at::Device device);
// The same of square matrices of one size, a multiple of 64; on the CPU of as many as `seconds_on_cpu` hold.
double MeasureMultiply(std::int64_t size, at::ScalarType dtype, at::Device device, double seconds_on_cpu);

class Profile {
 public:
  struct Settings {
    bool enabled = false;          // else nothing ever happens
    std::int64_t after = 3;        // steps of this start before the recorded ones
    std::int64_t steps = 10;       // recorded
    std::filesystem::path folder;  // for what is recorded
  };

  // All references outlive this.
  Profile(const Settings& settings, const Decoder& model, const dist::World& world,
          dist::Collectives& collectives);
  ~Profile();
  Profile(const Profile&) = delete;
  Profile& operator=(const Profile&) = delete;

  // Around every step. COLLECTIVE: in the same steps, all ranks measure and write.
  // Errors: ExitError(kCannotCreate), ExitError(kCheckpointWrite) for files that cannot be written.
  void BeforeStep();
  void AfterStep(const StepBatch& batch);
  // Ends the recording of a run that is over sooner. COLLECTIVE.
  void Finish();
  // The table, or why there is none; "" when none was asked for.
  const std::string& Report() const { return report_; }

 private:
  const Settings settings_;
  const Decoder& model_;
  const dist::World& world_;
  dist::Collectives& collectives_;
  // Steps, their model FLOPs and seconds.
  struct Timed {
    std::int64_t steps = 0;
    double flops = 0.0, seconds = 0.0;
  };

  std::int64_t steps_ = 0;  // begun since the start
  bool recording_ = false;
  std::chrono::steady_clock::time_point step_begin_;
  Timed unrecorded_;  // before the recorded ones, but the first, in which memory and libraries are prepared
  Timed recorded_;
  std::string report_;
};

}  // namespace plural::trainer
