// The checkpoints of a run: how the state as it is is committed, and its second copy.
//
// Owns: the writer and the mirror (rank 0's), the hash of the state that all ranks share, what log and
// metrics say of a checkpoint. Does not own: when one is due (training_run.h), what one is
// (state/checkpoint.h), which one a start takes (resume.h). Thread rule: main thread; COLLECTIVE where it
// says so.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "dist/collectives.h"
#include "dist/world.h"
#include "trainer/recipe/recipe.h"
#include "trainer/run/metrics.h"
#include "trainer/run/run_log.h"
#include "trainer/state/checkpoint_mirror.h"
#include "trainer/state/checkpoint_writer.h"
#include "trainer/state/train_state.h"

namespace plural::trainer {

// For a second copy: where the run is stopped others wait for its end.
constexpr double kStopPatienceSeconds = 30.0, kEndPatienceSeconds = 600.0;

class RunCheckpoints {
 public:
  // `saved_step`: the last of this run that there is; -1: none. The references outlive it.
  RunCheckpoints(const Recipe& recipe, std::int64_t saved_step, TrainState& state, const dist::World& world,
                 dist::Collectives& collectives, RunLog& log);

  // Whether the state as it is has been saved, or is being written.
  bool Saved() const { return saved_step_ == state_.position.step; }
  // `metrics`, rank 0's and empty elsewhere, gets a line first. `commits`: returns when the checkpoint is
  // committed; otherwise it is written while the run goes on. COLLECTIVE. Errors:
  // ExitError(kCheckpointWrite), those of RequireSameReplicas and RequireFinite.
  void Save(bool commits, std::optional<MetricsLog>& metrics);
  // Before the process ends early: until the state as it is is committed, and copied unless that takes longer
  // than others wait. COLLECTIVE. Errors: as Save.
  void SaveNow(std::optional<MetricsLog>& metrics);
  // The hash of the state as it is. COLLECTIVE. Errors: those of RequireSameReplicas.
  const std::string& SameReplicas();
  // Says so where a checkpoint has been committed or copied meanwhile. Errors: those of its writing.
  void NoteCommitted();
  // Waits for the second copy, at most so long: the process ends next.
  void FinishMirror(double seconds);

 private:
  const Recipe& recipe_;
  TrainState& state_;
  const dist::World& world_;
  dist::Collectives& collectives_;
  RunLog& log_;
  CheckpointWriter writer_;                 // rank 0's
  std::optional<CheckpointMirror> mirror_;  // rank 0's
  std::int64_t saved_step_;
  std::int64_t hashed_step_ = -1;
  std::string replica_sha256_;  // after that step
};

}  // namespace plural::trainer
