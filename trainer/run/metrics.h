// metrics.jsonl: what happened, one JSON object per line.
//
// Owns: the file, appending, the byte offset that a checkpoint commits. Does not own: what is measured
// (train.h). Thread rule: one thread, of rank 0.
//
// A line reaches the kernel in one write, so readers never see half of one while the run lives. After a
// crash the lines beyond the last checkpoint are cut off by the resume, and no step stands twice.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>

namespace plural::trainer {

// Keys in the order in which they are set; a number that is not finite becomes "nan", "inf" or "-inf".
using MetricsLine = nlohmann::ordered_json;
nlohmann::ordered_json MetricsNumber(double value);

class MetricsLog {
 public:
  // Keeps the first `committed_bytes` of the file and appends after them. Errors: ExitError(kBadData) when
  // the file is shorter than that, ExitError(kCannotCreate) when it cannot be opened for writing.
  MetricsLog(const std::filesystem::path& path, std::int64_t committed_bytes);
  ~MetricsLog();
  MetricsLog(const MetricsLog&) = delete;
  MetricsLog& operator=(const MetricsLog&) = delete;

  // Errors: ExitError(kCheckpointWrite).
  void Write(const MetricsLine& line);
  std::int64_t Bytes() const { return bytes_; }
  // Makes what was written durable: before a checkpoint commits Bytes(). Errors: ExitError(kCheckpointWrite).
  void Sync();

 private:
  [[noreturn]] void Fail(const char* what) const;

  std::filesystem::path path_;
  int descriptor_ = -1;
  std::int64_t bytes_ = 0;
};

}  // namespace plural::trainer
