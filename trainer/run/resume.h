// Where a start of a run goes on from.
//
// Owns: what the recipe's `resume` allows, the choice of the checkpoint and what it is compared with. Does
// not own: reading it (state/checkpoint.h), the identity of inputs (identity.h). Thread rule: main thread.
#pragma once

#include "dist/collectives.h"
#include "dist/world.h"
#include "trainer/recipe/recipe.h"
#include "trainer/run/run_log.h"
#include "trainer/state/train_state.h"

namespace plural::trainer {

// What can be said before anything is loaded, on rank 0. Errors: ExitError(kCannotCreate) for `never` and a
// folder with a checkpoint or a result; ExitError(kMissingInput) for `require` without either, or a
// checkpoint that is not there; ExitError(kBadRecipe) for one of the run itself, or of another recipe.
void RequireStart(const Recipe& recipe);

// Whether the run has a checkpoint of its own, also as a second copy alone.
bool HasCheckpoint(const Recipe& recipe);

// What a start would go on from, in words; "" for one that begins. The checkpoint that `resume` names is read
// and compared as a start does, but for what needs the model. One process. Errors: those of RequireStart,
// CheckCheckpoint and RequireSameIdentity.
std::string CheckStart(const Recipe& recipe);

// Fills `state` from the newest whole checkpoint of the run, or the second copy of one; without one, from
// that which `resume` names; else leaves it as it is. One of another run must be of the same recipe but for
// its name and the keys that may change at a resume, and of inputs with the same content; lines of its
// metrics are not taken over, and `state.position.metrics_bytes` is 0. COLLECTIVE. Errors: those of
// Checkpoints::LoadNewest, LoadCheckpoint, RequireStart and RequireSameIdentity.
void Resume(TrainState& state, const Recipe& recipe, const dist::World& world, dist::Collectives& collectives,
            RunLog& log);

}  // namespace plural::trainer
