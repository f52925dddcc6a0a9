// The loader: reads, labels and packs the next step while the current one trains.
//
// Owns: the reader thread and the corpus it reads from; memory is bounded by two steps of one rank.
// Does not own: the plan's definition, what a method labels, the trees' meaning. Thread rule: Next() from one
// thread; all HDF5 calls are made by the reader thread.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "data/batch_plan.h"
#include "data/corpus.h"
#include "data/rows.h"
#include "trainer/method/method.h"

namespace plural::trainer {

// One rank's share of one optimizer step.
struct StepBatch {
  std::int64_t step = 0;
  std::int64_t epoch = 0;
  std::int64_t groups_in_step = 0;          // over all ranks: the global denominator
  std::vector<data::LabelledGroup> groups;  // this rank's
  std::vector<data::RowPass> passes;
  // Where each group has passes of its own (Settings::apart): per group its place in the step and how many of
  // `passes` are its. Empty: groups share passes.
  struct OneGroup {
    std::int64_t index = 0;
    std::size_t passes = 0;
  };
  std::vector<OneGroup> apart;
  double predicted_balance = 1.0;
};

class Loader {
 public:
  struct Settings {
    const Method* method = nullptr;
    data::LabelSettings label;
    data::PackSettings pack;
    data::BatchPlan::Settings plan;
    int rank = 0;
    int ranks = 1;
    bool apart = false;  // no group shares a pass, and a rank's groups are neighbours in the step
    std::int64_t first_step = 0;
    std::int64_t last_step = 0;  // one past the last
  };

  Loader(data::Corpus corpus, const Settings& settings);
  ~Loader();

  // The next step's batch, in order; waits for the reader. Rethrows what the reader threw.
  // Precondition: not all steps have been taken.
  StepBatch Next();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace plural::trainer
