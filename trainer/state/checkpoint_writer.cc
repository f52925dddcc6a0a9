#include "trainer/state/checkpoint_writer.h"

#include <chrono>
#include <stdexcept>
#include <utility>

namespace plural::trainer {
namespace {

CheckpointWriter::Committed SaveTimed(const Checkpoints& checkpoints, const Snapshot& snapshot) {
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  checkpoints.Save(snapshot);
  return {snapshot.step, std::chrono::duration<double>(Clock::now() - start).count()};
}

}  // namespace

void CheckpointWriter::Start(Snapshot snapshot) {
  if (writing_.valid()) throw std::logic_error("CheckpointWriter::Start: a checkpoint is being written");
  writing_ = std::async(std::launch::async,
                        [this, snapshot = std::move(snapshot)] { return SaveTimed(checkpoints_, snapshot); });
}

void CheckpointWriter::WriteHere(const Snapshot& snapshot) {
  Wait();
  committed_ = SaveTimed(checkpoints_, snapshot);
}

std::optional<CheckpointWriter::Committed> CheckpointWriter::TakeCommitted() {
  if (writing_.valid() && writing_.wait_for(std::chrono::seconds(0)) == std::future_status::ready) Wait();
  return std::exchange(committed_, std::nullopt);
}

void CheckpointWriter::Wait() {
  if (writing_.valid()) committed_ = writing_.get();
}

}  // namespace plural::trainer
