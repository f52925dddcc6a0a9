// The profile of a run's steps: a Chrome trace, and a table of where their time went.
//
// Owns: when libtorch's recorder runs, what its events add up to, the speed of matrix multiplies that the
// steps are held against, two files per rank. Does not own: the scopes (model/part_scope.h). Thread rule: the
// thread that trains.
//
//   <run folder>/profile/rank-00000.json   trace, for chrome://tracing or ui.perfetto.dev
//                        rank-00000.txt    table
#pragma once

#include <ATen/core/TensorBody.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "dist/collectives.h"
#include "dist/world.h"
#include "trainer/model/decoder.h"
#include "trainer/run/loader.h"

namespace plural::trainer {

// Where the time of recorded steps went, of one thread.
struct TimeByPart {
  struct Row {
    std::string part;  // as in model/part_scope.h; "other" for what none claims
    double seconds = 0.0;
    double multiply_seconds = 0.0;  // of these, in matrix multiplies
  };
  std::vector<Row> rows;  // largest first, "other" last; together they are `seconds`
  double seconds = 0.0;
  std::int64_t steps = 0;
};

// An event of the recorder, times in ns.
struct RecordedEvent {
  std::string name;
  std::int64_t begin = 0, end = 0;
};

// Events of one thread that nest. Only what lies inside a "step" counts; every instant belongs to the
// innermost part around it.
TimeByPart AddUpParts(std::vector<RecordedEvent> events);

// FLOP/s of the fastest of several large multiplies of the kind that training uses, with the threads in use.
double MeasureMultiplyPeak(at::ScalarType dtype, at::Device device);

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
  std::int64_t steps_ = 0;  // begun since the start
  bool recording_ = false;
  double flops_ = 0.0;  // of the recorded steps
  std::string report_;
};

}  // namespace plural::trainer
