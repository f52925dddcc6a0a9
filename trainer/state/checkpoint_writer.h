// The checkpoint writer: commits checkpoints while the run goes on.
//
// Owns: the thread that writes one snapshot at a time. Does not own: what a checkpoint is (checkpoint.h),
// when one is due (run/training_run.h). Thread rule: one thread, rank 0's; the writing thread has the
// snapshot to itself.
#pragma once

#include <cstdint>
#include <future>
#include <optional>

#include "trainer/state/checkpoint.h"

namespace plural::trainer {

class CheckpointWriter {
 public:
  explicit CheckpointWriter(Checkpoints checkpoints) : checkpoints_(std::move(checkpoints)) {}
  // Waits for what is being written; whether it could be is no longer asked.
  ~CheckpointWriter() = default;

  struct Committed {
    std::int64_t step = 0;
    double seconds = 0.0;
  };

  // Begins to write. Precondition: nothing is being written (Wait).
  void Start(Snapshot snapshot);
  // Writes on the calling thread, since what comes from other ranks comes to the main thread only. Errors: as
  // Wait.
  void WriteHere(const Snapshot& snapshot);
  // The one that has been committed since the last call; nothing while it is being written. Errors: as Wait.
  std::optional<Committed> TakeCommitted();
  // Until nothing is being written. Errors: ExitError(kCheckpointWrite) of the one under way, once.
  void Wait();

 private:
  Checkpoints checkpoints_;
  std::future<Committed> writing_;
  std::optional<Committed> committed_;
};

}  // namespace plural::trainer
