// Lines that cost time to compute, kept while they come: a command that is stopped goes on behind them.
//
// Owns: "<target>.partial", which whole lines an earlier start left there, the target made of them. Does not
// own: what lines mean. Thread rule: one thread; one process at a time, which a lock ensures where the file
// system has locks.
//
// The first line of the partial file is the identity of the work: lines of other work are never mixed in, and
// never thrown away.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace plural {

class KeptLines {
 public:
  // `identity`: what decides the lines, as text without a line end.
  // Errors: ExitError(kCannotCreate) when another process writes them, when they belong to other work, or
  // when the file cannot be made or read; ExitError(kCheckpointWrite) for a line that cannot be written.
  KeptLines(const std::filesystem::path& target, const std::string& identity);
  ~KeptLines();  // lines that were written stay
  KeptLines(const KeptLines&) = delete;
  KeptLines& operator=(const KeptLines&) = delete;

  // The lines of an earlier start, without their ends.
  const std::vector<std::string>& Found() const { return found_; }
  // `lines`: whole ones, each with its end.
  void Write(std::string_view lines);
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
