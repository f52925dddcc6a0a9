// The lock that keeps a run from being trained twice at a time.
//
// Owns: the lock file, the means where a file system has no locks. Does not own: where it lies
// (run_folder.h). Thread rule: main thread.
#pragma once

#include <filesystem>

namespace plural::trainer {

class RunLock {
 public:
  // Errors: ExitError(kCannotCreate) that names the process which holds it, or why it cannot be made.
  explicit RunLock(const std::filesystem::path& path);
  ~RunLock();
  RunLock(const RunLock&) = delete;
  RunLock& operator=(const RunLock&) = delete;

 private:
  void HoldName(int reason);

  std::filesystem::path path_;
  int descriptor_ = -1;
  std::filesystem::path held_;  // empty where the file system has locks
};

}  // namespace plural::trainer
