// Checkpoints: the train state as folders on disk.
//
// Owns: their layout, commit, verification, retention. Does not own: what is in the state (train_state.h),
// how files become durable (file_io.h). Thread rule: one thread at a time (checkpoint_writer.h has its own);
// files are touched by rank 0 only.
//
//   checkpoints/step-00000200/trainable.safetensors   parameters under their Hugging Face names
//                             optimizer.safetensors   <name>.exp_avg, <name>.exp_avg_sq
//                             state.json              the rest; no decimal floats
//                             manifest.json           size and SHA-256 of the three, written last
//
// Nothing in them depends on the number of ranks. A folder appears whole (temporary name, fsync,
// rename), so every folder named step-N was committed; later damage is found by the hashes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "trainer/state/sharded_state.h"
#include "trainer/state/train_state.h"

namespace plural::trainer {

// What a checkpoint is written from.
struct Snapshot {
  std::int64_t step = 0;
  std::vector<dist::NamedTensor> parameters, moments;
  // In place of `moments`: they come from all ranks while the file is written, which is then COLLECTIVE.
  MomentsInTurn* sharded_moments = nullptr;
  std::string json;                // state.json
  std::int64_t metrics_bytes = 0;  // of metrics.jsonl, which it belongs to
  std::int64_t best_step = -1;     // of a checkpoint that stays whatever its age; -1: none
};
// The snapshot of `state`, whose replica hash is known. `copies`: the tensors are the snapshot's own, in host
// memory; otherwise `state` must stay as it is until the snapshot is written. With shards, `moments` stay
// empty.
Snapshot SnapshotOf(const TrainState& state, const std::string& replica_sha256, bool copies);

// The file with the moments in a checkpoint's folder.
std::filesystem::path MomentsFile(const std::filesystem::path& folder);

class Checkpoints {
 public:
  // The newest `keep` >= 1 are kept. `folder` is made with the first checkpoint.
  Checkpoints(std::filesystem::path folder, std::int64_t keep);

  // Removes folders that a killed run left half-written or half-removed. The caller holds the lock.
  void RemoveLeftovers() const;

  // Writes step-<step>, then removes those beyond `keep` but for the snapshot's best one.
  // Errors: ExitError(kCheckpointWrite); older checkpoints are untouched.
  void Save(const Snapshot& snapshot) const;

  struct Loaded {
    std::int64_t step = 0;
    std::filesystem::path folder;       // empty: there was none, the state is untouched
    std::vector<std::string> warnings;  // one for each bad checkpoint that was skipped
  };
  // Fills `state`, which has the right layout, from the newest checkpoint that is whole; moments of shards
  // are compared with their hash and left to ReadMoments. A bad one is renamed to step-N.bad-<unix time> and
  // the next older one is tried; one that the disk cannot read, twice, stays as it is and is passed over,
  // too. With `mirror`, whose folder has second copies: from the newest of both; of one step its own goes
  // first. Errors: ExitError(kBadData) when there are checkpoints but none is whole, or the newest has a
  // format of a later version or the parameters of another model, which stays as it is;
  // ExitError(kMissingInput) when the folder or all of its checkpoints cannot be read, or there is no
  // checkpoint in it and that of the mirror cannot be listed.
  Loaded LoadNewest(TrainState& state, const Checkpoints* mirror = nullptr) const;

  // What the newest checkpoint is bound to; nothing where there is none that can be read.
  std::optional<Identity> NewestIdentity() const;

  // Steps of the committed checkpoints, ascending. Errors: ExitError(kMissingInput) when the folder is there
  // and cannot be listed.
  std::vector<std::int64_t> Steps() const;
  const std::filesystem::path& Folder() const { return folder_; }
  std::filesystem::path StepFolder(std::int64_t step) const;

 private:
  std::vector<std::filesystem::path> Entries() const;

  std::filesystem::path folder_;
  std::int64_t keep_;
};

// Reads one checkpoint, as LoadNewest, and checks sizes, hashes, names and shapes. Errors: ExitError(kBadData
// or kMissingInput); `state` is then half filled.
void LoadCheckpoint(const std::filesystem::path& folder, TrainState& state);

// The same without a model: sizes, hashes, and what state.json and the tensors' headers say; changes nothing.
// Names and shapes of the parameters and the hash over all of them are known only with the model. Errors: as
// LoadCheckpoint.
SavedState CheckCheckpoint(const std::filesystem::path& folder, Sums epoch_sums);

}  // namespace plural::trainer
