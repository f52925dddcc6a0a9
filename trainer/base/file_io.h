// File I/O: files and folders that appear whole or not at all.
//
// Owns: temporary names, the order of write, fsync and rename, errors with errno, path and free space.
// Does not own: what is in the files. Thread rule: objects belong to one thread; two processes may
// write the same target at once, the last rename wins.
//
// Order of every commit: data is written and synced under a temporary name, renamed onto the target, and
// the folder that holds the name is synced. A crash leaves the old state or the new one, and perhaps a
// ".tmp-" entry that is incomplete by definition. fsync is never retried: after a failure the kernel may
// have dropped the dirty pages, so the whole file must be written again.
//
// Errors: ExitError(kMissingInput) for a file that cannot be read, ExitError(kCannotCreate) for one that
// cannot be created or renamed, ExitError(kCheckpointWrite) for bytes that did not reach the disk.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace plural {

// The whole file.
std::string ReadFile(const std::filesystem::path& path);

// Whether `bytes`, the beginning of a file, are those of a git-lfs pointer: the file was cloned without its
// content.
bool IsGitLfsPointer(std::string_view bytes);
// What to say of one.
inline constexpr const char* kGitLfsAdvice =
    "is a git-lfs pointer, not the file itself; run `git lfs pull` in its folder";

// Replaces `path` by `bytes`.
void WriteFileDurably(const std::filesystem::path& path, std::string_view bytes);

// Makes renames, creations and removals inside `folder` durable.
void SyncFolder(const std::filesystem::path& folder);

// A new file, written front to back. Fails when the name exists. Without Close() the file stays as far
// as it came: the owner of its folder removes it.
class OutputFile {
 public:
  // `shown`: the name in errors, where it is not `path`.
  explicit OutputFile(const std::filesystem::path& path, const std::filesystem::path& shown = {});
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  void Write(std::string_view bytes);
  std::int64_t Size() const { return size_; }  // bytes written so far
  // Syncs and closes; no Write after it.
  void Close();

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
  std::int64_t size_ = 0;
};

// A file under construction: written as ".tmp-<name>-<nonce>" beside `target`.
class PendingFile {
 public:
  explicit PendingFile(const std::filesystem::path& target);
  ~PendingFile();  // removes what was not committed
  PendingFile(const PendingFile&) = delete;
  PendingFile& operator=(const PendingFile&) = delete;

  void Write(std::string_view bytes) { file_.Write(bytes); }
  std::int64_t Size() const { return file_.Size(); }
  // Replaces the target by what was written.
  void Commit();

 private:
  std::filesystem::path target_, temporary_;
  OutputFile file_;
  bool committed_ = false;
};

// A folder under construction: ".tmp-<name>-<nonce>" beside `target`, to be filled by the caller.
class PendingFolder {
 public:
  explicit PendingFolder(const std::filesystem::path& target);
  ~PendingFolder();  // removes what was not committed
  PendingFolder(const PendingFolder&) = delete;
  PendingFolder& operator=(const PendingFolder&) = delete;

  const std::filesystem::path& Path() const { return temporary_; }

  enum class IfExists { kFail, kReplace };
  // Syncs every file and folder inside, then renames onto the target. With kReplace an existing target is
  // first renamed to ".trash-<name>-<nonce>" and removed after the new one is durable.
  void Commit(IfExists if_exists = IfExists::kFail);

 private:
  std::filesystem::path target_, temporary_;
  bool committed_ = false;
};

}  // namespace plural
