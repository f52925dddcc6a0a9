// What stands in a metrics.jsonl: whether each line is one, and whether the steps follow each other.
//
// Owns: the rules of the order. Does not own: the file's writing (metrics.h), what a run makes of a damage
// (verify.h). Memory: one line. Thread rule: pure.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

namespace plural::trainer {

struct MetricsCheck {
  std::int64_t lines = 0, bytes = 0;  // that are right, from the beginning
  std::int64_t last_step = 0;         // of them
  bool ended = false;                 // the line that a finished run writes last is there
  std::string problem;                // of the first line that is not; "": there is none
  bool cut = false;                   // that line is the last one, and its end is missing
};

// `log_every_steps`: where a start does not say its own, as those of earlier versions. Errors:
// ExitError(kMissingInput) for a file that cannot be read.
MetricsCheck CheckMetrics(const std::filesystem::path& path, std::int64_t log_every_steps);

}  // namespace plural::trainer
