// The checkpoint mirror: a second copy of each checkpoint in another folder, and of the metrics up to it.
//
// Owns: the thread that writes one copy after the other, what lies beside the copies. Does not own: what a
// checkpoint is (checkpoint.h), which copy a start takes (run/resume.h). Nothing that goes wrong here ends a
// run, and a folder that hangs holds up nothing but the next copy. Thread rule: one thread, rank 0's; the
// writing thread shares nothing with it but the snapshot and what is guarded by a mutex.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "trainer/state/checkpoint.h"

namespace plural::trainer {

class CheckpointMirror {
 public:
  // Copies go to `copies`; that of `metrics` to `metrics_copy`, which is beside them.
  CheckpointMirror(Checkpoints copies, std::filesystem::path metrics, std::filesystem::path metrics_copy);
  // Leaves what is being written to its thread: the process may end before it.
  ~CheckpointMirror() = default;

  struct Copied {
    std::int64_t step = 0;
    std::string problem;  // "": it is there
  };

  // Writes it in the thread, behind the copy that is under way. One may wait: the step of another that waited
  // is returned, and gets no copy. `snapshot` has tensors of its own.
  std::optional<std::int64_t> Start(Snapshot snapshot);
  // The last copy that has ended since the last call.
  std::optional<Copied> TakeCopied();
  // Waits until nothing is being written, at most so long. Returns whether that is so.
  bool WaitFor(double seconds);

 private:
  struct Shared;

  std::shared_ptr<Shared> shared_;
};

}  // namespace plural::trainer
