// File I/O: files and folders that appear whole or not at all.
//
// Owns: temporary names, the order of write, fsync and rename, errors with errno, path and free
// space. Does not own: what is in the files. Thread rule: each object belongs to one thread. Two
// processes may write the same target at once; the last rename wins.
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

std::string ReadFile(const std::filesystem::path& path);

// True when `bytes`, the beginning of a file, are a git-lfs pointer: a clone without its content.
bool IsGitLfsPointer(std::string_view bytes);
// The part of an error message about such a file.
inline constexpr const char* kGitLfsAdvice =
    "is a git-lfs pointer, not the file itself; run `git lfs pull` in its folder";

// Replaces the content of `path` with `bytes`.
void WriteFileDurably(const std::filesystem::path& path, std::string_view bytes);

// Makes `folder` and the folders above it that are not there, and their names durable where the folders that
// hold them can be synced.
void MakeFolders(const std::filesystem::path& folder);

// Makes durable which names are in `folder`.
void SyncNamesIn(const std::filesystem::path& folder);

// True for the names that a killed process leaves behind: ".tmp-..." and ".trash-...".
bool IsLeftover(const std::filesystem::path& path);

// A new file, written front to back. Construction fails when the name exists. Without Close() an
// incomplete file stays; the owner of its folder removes it.
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
  ~PendingFile();  // removes the file unless it was committed
  PendingFile(const PendingFile&) = delete;
  PendingFile& operator=(const PendingFile&) = delete;

  void Write(std::string_view bytes) { file_.Write(bytes); }
  std::int64_t Size() const { return file_.Size(); }
  // Replaces the target with the bytes written.
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
  ~PendingFolder();  // removes the folder unless it was committed
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
