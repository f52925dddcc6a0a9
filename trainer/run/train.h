// Train: one run, from its recipe to its adapter or model.
//
// Owns: the order in which everything is checked and loaded. Does not own: the loop over steps
// (training_run.h), the parts' meaning. Thread rule: main thread of every rank.
#pragma once

#include <ATen/core/TensorBody.h>

#include "dist/collectives.h"
#include "dist/watchdog.h"
#include "dist/world.h"
#include "trainer/base/error.h"
#include "trainer/base/signals.h"
#include "trainer/recipe/recipe.h"

namespace plural::trainer {

// Starts a run, or goes on with one from its newest checkpoint; all ranks get the same answer: kDone when the
// result is written (or was before), kStopped when `stop` asked for an end and a checkpoint is committed.
// COLLECTIVE. Errors: ExitError and those of data/ and dist/; a fault that all ranks see is thrown by one.
ExitCode Train(const Recipe& recipe, at::Device device, const dist::World& world,
               dist::Collectives& collectives, const StopSignal& stop, dist::Watchdog& watchdog);

}  // namespace plural::trainer
