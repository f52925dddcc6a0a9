// Lines that are expensive to compute, saved as they are produced: a command that was stopped
// continues after them.
//
// Owns: "<target>.partial", the whole lines that an earlier start left in it, the target made from
// them. Does not own: what lines mean. Thread rule: one thread; one process at a time, which a lock
// ensures where the file system has locks.
//
// The first line of the partial file identifies the work. Lines of other work are neither mixed in
// nor discarded.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace plural {

class KeptLines {
 public:
  // `identity`: all that determines the lines, as text without a line end.
  // Errors: ExitError(kCannotCreate) when another process writes them, when they belong to other work, or
  // when the file cannot be made or read; ExitError(kCheckpointWrite) for a line that cannot be written.
  KeptLines(const std::filesystem::path& target, const std::string& identity);
  ~KeptLines();  // keeps the lines that were written
  KeptLines(const KeptLines&) = delete;
  KeptLines& operator=(const KeptLines&) = delete;

  // The lines of an earlier start, without their line ends.
  const std::vector<std::string>& Found() const { return found_; }
  // `lines`: whole lines, each with its line end.
  void Write(std::string_view lines);
  // Throws all lines away, those of earlier starts too. Nothing is written after it.
  void Discard();
  // Makes all lines the target, and removes the partial file.
  void Commit();

 private:
  void ReadFound(const std::string& identity);
  void WriteAll(std::string_view bytes);

  std::filesystem::path target_, partial_;
  int descriptor_ = -1;
  std::vector<std::string> found_;
  bool has_lines_ = false;
};

}  // namespace plural
