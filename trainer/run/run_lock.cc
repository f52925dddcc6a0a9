#include "trainer/run/run_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstring>
#include <string>
#include <string_view>

#include "trainer/base/error.h"
#include "trainer/base/file_io.h"

namespace plural::trainer {
namespace {

std::string HostName() {
  char host[128] = {};
  ::gethostname(host, sizeof(host) - 1);
  return host;
}

std::string Self() { return "process " + std::to_string(::getpid()) + " on " + HostName(); }

[[noreturn]] void Refuse(const std::filesystem::path& path, const std::string& what) {
  throw ExitError(ExitCode::kCannotCreate, path.string() + ": " + what);
}

[[noreturn]] void RefuseHeld(const std::filesystem::path& path, const std::string& holder,
                             const std::string& advice = "") {
  Refuse(path, "this run is being trained by " + (holder.empty() ? "another process" : holder) +
                   "; wait for it, or give this run another name" + advice);
}

bool WriteSelf(int descriptor) {
  const std::string self = Self();
  return ::ftruncate(descriptor, 0) == 0 &&
         ::pwrite(descriptor, self.data(), self.size(), 0) == static_cast<ssize_t>(self.size());
}

// True for a process of this machine that is gone.
bool IsGone(std::string_view holder) {
  constexpr std::string_view kBegin = "process ";
  if (!holder.starts_with(kBegin)) return false;
  pid_t process = 0;
  const char* const end = holder.data() + holder.size();
  const auto [after, error] = std::from_chars(holder.data() + kBegin.size(), end, process);
  return error == std::errc{} && std::string_view(after, end) == " on " + HostName() &&
         ::kill(process, 0) != 0 && errno == ESRCH;
}

}  // namespace

RunLock::RunLock(const std::filesystem::path& path) : path_(path) {
  descriptor_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (descriptor_ < 0)
    Refuse(path, std::string(std::strerror(errno)) + "; give a folder that can be written (run.dir)");
  try {
    if (::flock(descriptor_, LOCK_EX | LOCK_NB) != 0) {
      if (errno == EWOULDBLOCK) RefuseHeld(path, ReadFile(path));
      HoldName(errno);
    }
    // For people only: the lock is the flock, which a dead process cannot hold.
    if (!WriteSelf(descriptor_)) Refuse(path, std::string("cannot be written: ") + std::strerror(errno));
  } catch (...) {  // a constructor that throws has no destructor
    ::close(descriptor_);
    throw;
  }
}

RunLock::~RunLock() {
  std::error_code ignored;
  if (!held_.empty()) std::filesystem::remove(held_, ignored);
  ::close(descriptor_);
}

// Where the file system has no locks (NFS without its lock service, some mounts of Lustre) the run is held by
// a second file, which is there while the run lives. A crash leaves it behind; what it says tells whether its
// process still runs.
void RunLock::HoldName(int reason) {
  std::filesystem::path name = path_;
  name += ".held";
  for (int attempt = 0; attempt < 2; ++attempt) {
    const int made = ::open(name.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (made >= 0) {
      held_ = name;
      const bool written = WriteSelf(made);
      ::close(made);
      if (written) return;
      std::filesystem::remove(name);
      Refuse(name, std::string("cannot be written: ") + std::strerror(errno));
    }
    if (errno != EEXIST) Refuse(name, std::string("cannot be made: ") + std::strerror(errno));
    const std::string holder = ReadFile(name);
    if (!IsGone(holder)) {
      RefuseHeld(name, holder,
                 std::string(". The file system has no locks (") + std::strerror(reason) +
                     "): if that process is gone, remove this file");
    }
    std::filesystem::remove(name);
  }
  Refuse(name, "another process is about to train this run; wait for it");
}

}  // namespace plural::trainer
