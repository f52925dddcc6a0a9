#include "trainer/base/file_io.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <random>
#include <utility>
#include <vector>

#include "trainer/base/error.h"
#include "trainer/base/write_fault.h"

namespace plural {
namespace fs = std::filesystem;
namespace {

// Linux moves at most 2 GiB in one call; smaller pieces keep signals and progress responsive.
constexpr std::size_t kMaxTransfer = std::size_t{1} << 28;

[[noreturn]] void Fail(ExitCode code, const std::string& action, const fs::path& path, int error) {
  throw ExitError(code, "cannot " + action + " '" + path.string() + "': " + std::strerror(error));
}

// `needed_bytes`: the bytes that were still to be written.
[[noreturn]] void FailWrite(const fs::path& path, std::size_t needed_bytes, int error) {
  std::string what = "cannot write '" + path.string() + "': " + std::strerror(error);
  if (error == ENOSPC || error == EDQUOT) {
    std::error_code ignored;
    const fs::space_info space = fs::space(path.parent_path(), ignored);
    what += "; needed at least " + std::to_string(needed_bytes) + " more bytes";
    if (!ignored) what += ", free " + std::to_string(space.available) + " bytes";
    what += "; free space or choose another folder";
  }
  throw ExitError(ExitCode::kCheckpointWrite, what);
}

fs::path ParentOf(const fs::path& path) {
  const fs::path parent = path.parent_path();
  return parent.empty() ? fs::path(".") : parent;
}

// A trailing '/' would make the name empty and put the temporary folder inside the target.
fs::path WithoutTrailingSlash(const fs::path& path) {
  const fs::path clean = path.has_filename() ? path : path.parent_path();
  if (!clean.has_filename() || clean.filename() == "." || clean.filename() == "..") {
    throw ExitError(ExitCode::kCannotCreate,
                    "cannot create '" + path.string() + "': the path has no last name");
  }
  return clean;
}

fs::path Sibling(const fs::path& target, const char* prefix) {
  std::random_device random;
  char nonce[17];
  std::snprintf(nonce, sizeof nonce, "%08x%08x", random(), random());
  return ParentOf(target) / (prefix + target.filename().string() + "-" + nonce);
}

// Syncs through a new descriptor, which works for files and folders alike.
void SyncPath(const fs::path& path, int flags) {
  const int descriptor = open(path.c_str(), flags | O_CLOEXEC);
  if (descriptor < 0) Fail(ExitCode::kCheckpointWrite, "open for syncing", path, errno);
  if (fsync(descriptor) != 0) {
    const int error = errno;
    close(descriptor);  // the sync has failed already; that is the error to report
    Fail(ExitCode::kCheckpointWrite, "sync", path, error);
  }
  if (close(descriptor) != 0) Fail(ExitCode::kCheckpointWrite, "close", path, errno);
}

// Makes renames, creations and removals inside `folder` durable.
void SyncFolder(const fs::path& folder) { SyncPath(folder, O_RDONLY | O_DIRECTORY); }

// A folder that may be written and not read, or whose file system syncs none, is no reason not to begin.
void SyncIfPossible(const fs::path& folder) {
  const int descriptor = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return;
  const int ignored = fsync(descriptor);
  static_cast<void>(ignored);
  close(descriptor);
}

void SyncTree(const fs::path& folder) {
  std::error_code error;
  for (fs::recursive_directory_iterator entry(folder, error), last; !error && entry != last;
       entry.increment(error)) {
    if (entry->is_directory()) {
      SyncFolder(entry->path());
    } else if (entry->is_regular_file() && !entry->is_symlink()) {
      SyncPath(entry->path(), O_RDONLY);
    }
  }
  if (error) Fail(ExitCode::kCheckpointWrite, "list", folder, error.value());
  SyncFolder(folder);
}

void Rename(const fs::path& from, const fs::path& to) {
  if (std::rename(from.c_str(), to.c_str()) != 0) {
    Fail(ExitCode::kCannotCreate, "rename '" + from.filename().string() + "' to", to, errno);
  }
}

}  // namespace

std::string ReadFile(const fs::path& path) {
  const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) Fail(ExitCode::kMissingInput, "read", path, errno);
  std::string bytes;
  struct stat status {};
  if (fstat(descriptor, &status) == 0 && S_ISREG(status.st_mode)) {
    bytes.reserve(static_cast<std::size_t>(status.st_size));
  }
  std::vector<char> buffer(1 << 16);
  for (;;) {
    const ssize_t got = read(descriptor, buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) {
      const int error = errno;
      close(descriptor);
      Fail(ExitCode::kMissingInput, "read", path, error);
    }
    if (got == 0) break;
    bytes.append(buffer.data(), static_cast<std::size_t>(got));
  }
  close(descriptor);  // read only: nothing can be lost
  return bytes;
}

void WriteFileDurably(const fs::path& path, std::string_view bytes) {
  PendingFile file(path);
  file.Write(bytes);
  file.Commit();
}

void MakeFolders(const fs::path& folder) {
  std::error_code error;
  std::vector<fs::path> missing;
  for (fs::path path = folder; !path.empty() && !fs::exists(path, error); path = path.parent_path()) {
    if (path.has_filename()) missing.push_back(path);  // not the empty name behind a last '/'
  }
  fs::create_directories(folder, error);
  if (error) Fail(ExitCode::kCannotCreate, "create", folder, error.value());
  for (const fs::path& made : missing) SyncIfPossible(ParentOf(made));
}

void SyncNamesIn(const fs::path& folder) { SyncFolder(folder.empty() ? fs::path(".") : folder); }

bool IsGitLfsPointer(std::string_view bytes) {
  return bytes.starts_with("version https://git-lfs.github.com/spec/");
}

bool IsLeftover(const fs::path& path) {
  const std::string name = path.filename().string();
  return name.starts_with(".tmp-") || name.starts_with(".trash-");
}

OutputFile::OutputFile(const fs::path& path, const fs::path& shown) : path_(path) {
  descriptor_ = open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
  if (descriptor_ < 0) Fail(ExitCode::kCannotCreate, "create", shown.empty() ? path : shown, errno);
}

OutputFile::~OutputFile() {
  if (descriptor_ >= 0) close(descriptor_);  // abandoned: its content is not used
}

void OutputFile::Write(std::string_view bytes) {
  while (!bytes.empty()) {
    if (FaultOf(path_) == WriteFault::kNoSpace) FailWrite(path_, bytes.size(), ENOSPC);
    const ssize_t wrote = write(descriptor_, bytes.data(), std::min(bytes.size(), kMaxTransfer));
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0) FailWrite(path_, bytes.size(), errno);
    size_ += wrote;
    bytes.remove_prefix(static_cast<std::size_t>(wrote));
  }
}

void OutputFile::Close() {
  const int descriptor = std::exchange(descriptor_, -1);
  if (FaultOf(path_) == WriteFault::kTorn && ftruncate(descriptor, size_ / 2) != 0) {
    FailWrite(path_, 0, errno);
  }
  if (fsync(descriptor) != 0) {
    const int error = errno;
    close(descriptor);
    FailWrite(path_, 0, error);
  }
  if (close(descriptor) != 0) FailWrite(path_, 0, errno);
}

PendingFile::PendingFile(const fs::path& target)
    : target_(WithoutTrailingSlash(target)),
      temporary_(Sibling(target_, ".tmp-")),
      file_(temporary_, target_) {}

PendingFile::~PendingFile() {
  if (!committed_) unlink(temporary_.c_str());
}

void PendingFile::Commit() {
  file_.Close();
  Rename(temporary_, target_);
  committed_ = true;
  SyncFolder(ParentOf(target_));
}

PendingFolder::PendingFolder(const fs::path& target)
    : target_(WithoutTrailingSlash(target)), temporary_(Sibling(target_, ".tmp-")) {
  if (mkdir(temporary_.c_str(), 0777) != 0) Fail(ExitCode::kCannotCreate, "create", target_, errno);
}

PendingFolder::~PendingFolder() {
  if (committed_) return;
  std::error_code ignored;  // a leftover ".tmp-" is harmless, an exception here is not
  fs::remove_all(temporary_, ignored);
}

void PendingFolder::Commit(IfExists if_exists) {
  SyncTree(temporary_);
  fs::path trash;
  std::error_code error;
  const bool exists = fs::exists(fs::symlink_status(target_, error));
  if (exists && if_exists == IfExists::kFail) {
    // rename(2) would silently take the place of an empty folder.
    Fail(ExitCode::kCannotCreate, "create", target_, EEXIST);
  }
  if (exists) {
    trash = Sibling(target_, ".trash-");
    Rename(target_, trash);
  }
  try {
    Rename(temporary_, target_);
  } catch (const ExitError&) {
    if (!trash.empty()) Rename(trash, target_);
    throw;
  }
  committed_ = true;
  SyncFolder(ParentOf(target_));
  if (!trash.empty()) fs::remove_all(trash, error);  // a leftover ".trash-" costs only space
}

}  // namespace plural
