#include "trainer/run/run_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>
#include <string_view>

#include "trainer/base/error.h"
#include "trainer/base/file_io.h"
#include "trainer/base/printable.h"

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

struct Process {
  pid_t id = 0;  // 0: the text names none
  bool here = false;
};
Process ProcessIn(std::string_view holder) {
  constexpr std::string_view kBegin = "process ";
  if (!holder.starts_with(kBegin)) return {};
  Process process;
  const char* const end = holder.data() + holder.size();
  const auto [after, error] = std::from_chars(holder.data() + kBegin.size(), end, process.id);
  if (error != std::errc{}) return {};
  process.here = std::string_view(after, end) == " on " + HostName();
  return process;
}

// True for a process of this machine that is gone.
bool IsGone(std::string_view holder) {
  const Process process = ProcessIn(holder);
  return process.id > 0 && process.here && ::kill(process.id, 0) != 0 && errno == ESRCH;
}

// By the kernel's list of locks, "1: FLOCK  ADVISORY  WRITE 4711 08:01:1835 0 EOF".
bool HasLock(pid_t process, ino_t inode) {
  std::ifstream locks("/proc/locks");
  for (std::string line; std::getline(locks, line);) {
    std::istringstream words(line);
    std::string number, kind, advisory, access, id, place;
    words >> number >> kind >> advisory >> access >> id >> place;
    const bool whole =
        kind == "FLOCK" || kind == "POSIX";  // network file systems make the second of the first
    if (whole && id == std::to_string(process) && place.ends_with(":" + std::to_string(inode))) return true;
  }
  return false;
}

std::string ShortText(const std::filesystem::path& path) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) return "";
  std::string text(256, '\0');
  std::ifstream stream(path, std::ios::binary);
  stream.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<std::size_t>(stream.gcount()));
  return text;
}

}  // namespace

RunLock::RunLock(const std::filesystem::path& path) : path_(path) {
  descriptor_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
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

LockHolder HolderOf(const std::filesystem::path& path) {
  using State = LockHolder::State;
  std::filesystem::path held = path;
  held += ".held";
  if (const std::string holder = ShortText(held); !holder.empty()) {
    return {IsGone(holder) ? State::kNone : State::kLives, Printable(holder)};
  }
  const std::string holder = ShortText(path);
  const Process process = ProcessIn(holder);
  if (process.id == 0) return {};
  if (!process.here) return {State::kElsewhere, Printable(holder)};
  struct stat status {};
  const bool lives = ::stat(path.c_str(), &status) == 0 && HasLock(process.id, status.st_ino);
  return {lives ? State::kLives : State::kNone, Printable(holder)};
}

}  // namespace plural::trainer
