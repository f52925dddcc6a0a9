#include "trainer/base/kept_lines.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "trainer/base/error.h"
#include "trainer/base/file_io.h"

namespace plural {
namespace fs = std::filesystem;
namespace {

fs::path PartialOf(fs::path target) {
  target += ".partial";
  return target;
}

[[noreturn]] void Refuse(const fs::path& path, const std::string& what) {
  throw ExitError(ExitCode::kCannotCreate, path.string() + ": " + what);
}

}  // namespace

KeptLines::KeptLines(const fs::path& target, const std::string& identity)
    : target_(target), partial_(PartialOf(target)) {
  if (fs::exists(target) && !fs::is_regular_file(target))
    Refuse(target, "is no regular file; name another one");
  descriptor_ = ::open(partial_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
  if (descriptor_ < 0) Refuse(partial_, std::string("cannot be created: ") + std::strerror(errno));
  try {
    if (::flock(descriptor_, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
      Refuse(partial_, "another process is writing this file; wait for it, or name another output");
    }
    struct stat status {};
    if (::fstat(descriptor_, &status) != 0 || status.st_nlink == 0) {
      Refuse(partial_, "another process has finished this file just now; start again");
    }
    ReadFound(identity + "\n");
  } catch (...) {  // no destructor runs after a constructor that throws
    ::close(descriptor_);
    throw;
  }
}

KeptLines::~KeptLines() {
  if (!has_lines_) ::unlink(partial_.c_str());
  ::close(descriptor_);
}

void KeptLines::ReadFound(const std::string& identity) {
  std::string content = ReadFile(partial_);
  content.resize(content.rfind('\n') + 1);  // drops an incomplete last line; npos + 1 is 0
  if (content.find('\n') + 1 == content.size()) content.clear();  // no line was kept for whoever it was
  if (!content.empty() && !content.starts_with(identity)) {
    Refuse(
        partial_,
        "was left by the same command with other options, model or input; start that one again to finish it, "
        "remove this file, or name another output");
  }
  if (::ftruncate(descriptor_, static_cast<off_t>(content.size())) != 0 ||
      ::lseek(descriptor_, 0, SEEK_END) < 0) {
    Refuse(partial_, std::string("cannot be cut to its whole lines: ") + std::strerror(errno));
  }
  if (content.empty()) return WriteAll(identity);
  for (std::size_t begin = identity.size(); begin < content.size();) {
    const std::size_t end = content.find('\n', begin);
    found_.push_back(content.substr(begin, end - begin));
    begin = end + 1;
  }
  has_lines_ = !found_.empty();
}

void KeptLines::Write(std::string_view lines) {
  has_lines_ = has_lines_ || !lines.empty();
  WriteAll(lines);
}

void KeptLines::WriteAll(std::string_view lines) {
  while (!lines.empty()) {
    const ssize_t written = ::write(descriptor_, lines.data(), lines.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) {
      throw ExitError(ExitCode::kCheckpointWrite,
                      partial_.string() + ": cannot be written: " + std::strerror(errno) +
                          "; make room: the same command goes on behind the lines that are there");
    }
    lines.remove_prefix(static_cast<std::size_t>(written));
  }
}

void KeptLines::Discard() {
  has_lines_ = false;
  ::unlink(partial_.c_str());
}

void KeptLines::Commit() {
  const std::string content = ReadFile(partial_);
  PendingFile whole(target_);
  whole.Write(std::string_view(content).substr(content.find('\n') + 1));
  whole.Commit();
  has_lines_ = false;
}

}  // namespace plural
