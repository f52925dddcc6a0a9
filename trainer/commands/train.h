// `plural train`: a recipe to an adapter or a model.
//
// Owns: the command's options, that all ranks read the same recipe, the choice of device. Does not own: the
// run (train.h). Thread rule: main thread. COLLECTIVE.
#pragma once

#include <string>
#include <vector>

#include "dist/collectives.h"
#include "dist/watchdog.h"
#include "dist/world.h"

namespace CLI {
class App;
}

namespace plural::trainer {

struct TrainOptions {
  std::string recipe;
  std::vector<std::string> overrides;  // a.b=c
};

void AddTrainOptions(CLI::App& command, TrainOptions& options);

// The recipe's, before ranks can agree on one: the defaults where it cannot be read, which RunTrain reports.
dist::Deadlines DeadlinesToStart(const TrainOptions& options);

// 0 when the run is finished, 75 when it was stopped on request and saved. `collectives` work on host memory;
// on GPUs the run makes its own.
int RunTrain(const TrainOptions& options, dist::World& world, dist::Collectives& collectives,
             dist::Watchdog& watchdog);

}  // namespace plural::trainer
