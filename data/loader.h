// The loader: reads, labels and packs the next step while the current one trains.
//
// Owns: the reader thread and the corpus it reads from; memory is bounded by two steps of one rank.
// Does not own: the plan's definition, the trees' meaning. Thread rule: Next() from one thread; all HDF5
// calls are made by the reader thread.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "data/batch_plan.h"
#include "data/corpus.h"
#include "data/labelling.h"
#include "data/rows.h"

namespace plural::data {

// One rank's share of one optimizer step.
struct StepBatch {
  std::int64_t step = 0;
  std::int64_t epoch = 0;
  std::int64_t groups_in_step = 0;    // over all ranks: the global denominator
  std::vector<LabelledGroup> groups;  // this rank's
  std::vector<RowPass> passes;
  double predicted_balance = 1.0;
};

class Loader {
 public:
  struct Settings {
    LabelSettings label;
    PackSettings pack;
    BatchPlan::Settings plan;
    int rank = 0;
    int ranks = 1;
    std::int64_t first_step = 0;
    std::int64_t last_step = 0;  // one past the last
  };

  Loader(Corpus corpus, const Settings& settings);
  ~Loader();

  // The next step's batch, in order; waits for the reader. Rethrows what the reader threw.
  // Precondition: not all steps have been taken.
  StepBatch Next();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Predicted cost of a group under the settings, from its lengths alone: the same on every rank, and
// without reading a token. Rows, with P, T, L for the tokens of prompt, longest tail and all used responses,
// n for their number, and D = L - n for the response tokens that are fed (the last one of each is not):
//
//   pretrain, otoft, otmft, distribution_matching   P + T + D
//   peft, K negatives                               P + n T + (1 + K / n) D
//   cvf, below K latents or n mixed ones            (P + T + L + n) to recognise, and P + T + K (1 + D)
//                                                   or P + T + n + D
//
// Which responses an aligned selection takes is not known here: L is then their share of all candidates'
// tokens. What responses share among themselves is not known either and not subtracted. If several trees are
// cheaper, or max_rows asks for them, P is counted once a tree.
double PredictCost(const Corpus::GroupLengths& lengths, const LabelSettings& label, const CostModel& cost);

}  // namespace plural::data
