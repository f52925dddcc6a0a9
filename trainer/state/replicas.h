// What ranks that train the same parameters ask of each other's state: that it is the same, and finite.
//
// Owns: the comparison, what is said of a difference, rank 0's state to all. Does not own: the hash
// (train_state.h), moments that lie on several ranks (sharded_state.h). Thread rule: main thread.
#pragma once

#include <string>

#include "dist/collectives.h"
#include "dist/world.h"
#include "trainer/state/train_state.h"

namespace plural::trainer {

// The replica hash, which is the same on all ranks. COLLECTIVE. Errors: ExitError(kReplicasDiffer) naming the
// ranks that differ from most.
std::string RequireSameReplicas(const TrainState& state, const dist::World& world,
                                dist::Collectives& collectives);

// No number that is not finite is ever written. COLLECTIVE, of ranks that hold the same parameters. Errors:
// ExitError(kDiverged) naming the step and the parameter.
void RequireFinite(const TrainState& state, const dist::World& world, dist::Collectives& collectives);

// Copies rank 0's state to all ranks, without the moments where there are shards (ReadMoments). COLLECTIVE.
void BroadcastState(TrainState& state, dist::Collectives& collectives);

}  // namespace plural::trainer
