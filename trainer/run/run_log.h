// The run's log: one file per rank, for people who look for a reason later.
//
// Owns: log/rank-NNNNN.log with UTC times; warnings, which rank 0 also puts on standard error. Does not own:
// numbers (metrics.h), progress on the terminal (progress.h). Thread rule: one thread.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

namespace spdlog {
class logger;
}

namespace plural::trainer {

class RunLog {
 public:
  // Appends to `file`. `speaks`: warnings go to standard error too.
  // Errors: ExitError(kCannotCreate).
  RunLog(const std::filesystem::path& file, bool speaks);
  ~RunLog();
  RunLog(RunLog&&) noexcept;

  void Info(const std::string& message);
  void Warn(const std::string& message);
  // What ends the run; for the log alone, since main.cc reports it.
  void Error(const std::string& message);

 private:
  std::unique_ptr<spdlog::logger> logger_;
  bool speaks_;
};

}  // namespace plural::trainer
