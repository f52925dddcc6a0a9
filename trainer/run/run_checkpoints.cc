#include "trainer/run/run_checkpoints.h"

#include <algorithm>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "trainer/run/run_folder.h"
#include "trainer/state/replicas.h"
#include "trainer/state/sharded_state.h"

namespace plural::trainer {

RunCheckpoints::RunCheckpoints(const Recipe& recipe, std::int64_t saved_step, TrainState& state,
                               const dist::World& world, dist::Collectives& collectives, RunLog& log)
    : recipe_(recipe),
      state_(state),
      world_(world),
      collectives_(collectives),
      log_(log),
      writer_(Checkpoints(RunPaths(recipe).Checkpoints(), recipe.checkpoint.keep)),
      saved_step_(saved_step) {
  if (world.Rank() != 0 || recipe.checkpoint.mirror.empty()) return;
  const std::filesystem::path folder = recipe.MirrorFolder(), metrics = RunPaths(recipe).Metrics();
  mirror_.emplace(Checkpoints(folder, recipe.checkpoint.keep), metrics, folder / metrics.filename());
}

void RunCheckpoints::Save(bool commits, std::optional<MetricsLog>& metrics) {
  world_.GetPulse().Enter(dist::Phase::kCheckpoint, state_.position.step);
  if (world_.Rank() == 0) {
    MetricsLine line;
    line["event"] = "checkpoint";
    line["step"] = state_.position.step;
    metrics->Write(line);
    metrics->Sync();
    state_.position.metrics_bytes = metrics->Bytes();
  }
  // The mirror writes while the state moves on, as an asynchronous checkpoint does. The same on all ranks.
  const bool copies = !commits || !recipe_.MirrorFolder().empty();
  std::string replica_sha256 = SameReplicas();
  RequireFinite(state_, world_, collectives_);
  std::optional<MomentsInTurn> moments;  // of shards
  std::vector<dist::NamedTensor> copied;
  if (state_.shards) {
    replica_sha256 = HashOverRanks(state_, collectives_);
    moments.emplace(state_, collectives_);
    if (copies) copied = CopyOfMoments(*moments);
  }
  if (world_.Rank() == 0) {
    writer_.Wait();
    NoteCommitted();
    Snapshot snapshot = SnapshotOf(state_, replica_sha256, copies);
    if (const auto best = state_.validation.best.find(recipe_.checkpoint.keep_best);
        best != state_.validation.best.end()) {
      snapshot.best_step = best->second.step;
    }
    if (moments && copies) snapshot.moments = std::move(copied);
    if (const auto passed = mirror_ ? mirror_->Start(snapshot) : std::nullopt) {
      log_.Warn("checkpoint.mirror: step " + std::to_string(*passed) +
                " gets no copy, that of an earlier one is still being written");
    }
    if (moments && !copies) {
      snapshot.sharded_moments = &*moments;
      writer_.WriteHere(snapshot);
    } else {
      writer_.Start(std::move(snapshot));
      if (commits) writer_.Wait();
    }
    if (commits) NoteCommitted();
  } else if (moments && !copies) {
    PassOn(*moments);
  }
  saved_step_ = state_.position.step;
  if (commits) collectives_.Barrier();  // no rank ends before the commit
}

void RunCheckpoints::SaveNow(std::optional<MetricsLog>& metrics) {
  if (!Saved()) {
    FinishMirror(kStopPatienceSeconds);
    Save(/*commits=*/true, metrics);
  }
  if (world_.Rank() == 0) {
    writer_.Wait();
    FinishMirror(kStopPatienceSeconds);
  }
  collectives_.Barrier();
}

const std::string& RunCheckpoints::SameReplicas() {
  if (hashed_step_ != state_.position.step) {
    replica_sha256_ = RequireSameReplicas(state_, world_, collectives_);
    hashed_step_ = state_.position.step;
  }
  return replica_sha256_;
}

void RunCheckpoints::NoteCommitted() {
  if (const auto copied = mirror_ ? mirror_->TakeCopied() : std::nullopt) {
    const std::string step = "step " + std::to_string(copied->step);
    if (copied->problem.empty()) {
      log_.Info("checkpoint of " + step + " copied to " + recipe_.checkpoint.mirror);
    } else {
      log_.Warn("checkpoint.mirror: no copy of " + step + ": " + copied->problem + "; the run goes on");
    }
  }
  const std::optional<CheckpointWriter::Committed> done = writer_.TakeCommitted();
  if (!done) return;
  char seconds[32];
  std::snprintf(seconds, sizeof(seconds), "%.3f", done->seconds);
  log_.Info("checkpoint of step " + std::to_string(done->step) + " committed in " + seconds + " s");
}

void RunCheckpoints::FinishMirror(double seconds) {
  if (!mirror_) return;
  // Below what the watchdog grants: it is no reason to end a run in another way.
  if (!mirror_->WaitFor(std::min(seconds, 0.5 * recipe_.watchdog.checkpoint_seconds))) {
    log_.Warn("checkpoint.mirror: the last copy is still being written, and is not waited for");
  }
  NoteCommitted();
}

}  // namespace plural::trainer
