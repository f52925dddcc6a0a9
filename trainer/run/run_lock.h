// The lock that keeps a run from being trained twice at a time.
//
// Owns: the lock file, the means where a file system has no locks. Does not own: where it lies
// (run_folder.h). Thread rule: main thread.
#pragma once

#include <filesystem>
#include <string>

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

// Who holds the lock, found without taking it: a start in the same instant would be refused.
struct LockHolder {
  enum class State {
    kNone,       // nobody, as far as this machine knows
    kLives,      // a process of this machine, or what `.held` names
    kElsewhere,  // another machine had it last: whether its process lives is not known here
  };
  State state = State::kNone;
  std::string name;  // "process 12 on host"
};
LockHolder HolderOf(const std::filesystem::path& path);

}  // namespace plural::trainer
