#include "trainer/state/checkpoint_mirror.h"

#include <chrono>
#include <condition_variable>
#include <exception>
#include <fstream>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>

#include "trainer/base/error.h"
#include "trainer/base/file_io.h"

namespace plural::trainer {
namespace {

// The first bytes of a file that another thread appends to, as a file that appears whole.
void CopyBeginning(const std::filesystem::path& from, std::int64_t bytes, const std::filesystem::path& to) {
  std::ifstream in(from, std::ios::binary);
  PendingFile out(to);
  std::string piece(1 << 20, '\0');
  while (bytes > 0) {
    in.read(piece.data(), std::min(bytes, static_cast<std::int64_t>(piece.size())));
    const auto got = in.gcount();
    if (got <= 0) throw ExitError(ExitCode::kMissingInput, from.string() + ": cannot be read whole");
    out.Write({piece.data(), static_cast<std::size_t>(got)});
    bytes -= got;
  }
  out.Commit();
}

}  // namespace

struct CheckpointMirror::Shared {
  Checkpoints copies;
  std::filesystem::path metrics, metrics_copy;
  std::mutex mutex{};
  std::condition_variable ended{};
  bool writing = false;
  std::optional<Snapshot> waiting{};
  std::optional<Copied> copied{};

  std::string Write(const Snapshot& snapshot) const {
    try {
      MakeFolders(metrics_copy.parent_path());
      // First: a copy of a checkpoint never lacks its lines.
      CopyBeginning(metrics, snapshot.metrics_bytes, metrics_copy);
      copies.Save(snapshot);
      return "";
    } catch (const std::exception& error) {  // the run goes on without this copy
      return error.what();
    }
  }
};

CheckpointMirror::CheckpointMirror(Checkpoints copies, std::filesystem::path metrics,
                                   std::filesystem::path metrics_copy)
    : shared_(new Shared{std::move(copies), std::move(metrics), std::move(metrics_copy)}) {}

std::optional<std::int64_t> CheckpointMirror::Start(Snapshot snapshot) {
  const std::scoped_lock lock(shared_->mutex);
  const std::optional<Snapshot> before = std::exchange(shared_->waiting, std::move(snapshot));
  if (before) return before->step;
  if (shared_->writing) return std::nullopt;
  shared_->writing = true;
  // Detached: a thread that waits for a dead disk for ever must not keep the process from ending.
  std::thread([shared = shared_] {
    std::unique_lock held(shared->mutex);
    while (const std::optional<Snapshot> next = std::exchange(shared->waiting, std::nullopt)) {
      held.unlock();
      Copied copied{.step = next->step, .problem = shared->Write(*next)};
      held.lock();
      shared->copied = std::move(copied);
    }
    shared->writing = false;
    shared->ended.notify_all();
  }).detach();
  return std::nullopt;
}

std::optional<CheckpointMirror::Copied> CheckpointMirror::TakeCopied() {
  const std::scoped_lock lock(shared_->mutex);
  return std::exchange(shared_->copied, std::nullopt);
}

bool CheckpointMirror::WaitFor(double seconds) {
  std::unique_lock lock(shared_->mutex);
  return shared_->ended.wait_for(lock, std::chrono::duration<double>(seconds),
                                 [&] { return !shared_->writing; });
}

}  // namespace plural::trainer
