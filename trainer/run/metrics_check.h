// What stands in a metrics.jsonl: whether each line is one, and whether the steps follow each other.
//
// Owns: the rules of the order. Does not own: the file's writing (metrics.h), what a run makes of a damage
// (verify.h). Memory: one line. Thread rule: pure.
#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <optional>
#include <string>

namespace plural::trainer {

struct MetricsCheck {
  std::int64_t lines = 0, bytes = 0;  // that are right, from the beginning
  std::int64_t last_step = 0;         // of them
  bool ended = false;                 // the line that a finished run writes last is there
  std::string problem;                // of the first line that is not; "": there is none
  bool cut = false;                   // that line is the last one, and its end is missing
  std::int64_t shown_step = 0;        // no line up to this step is missing, but for those that are
  std::string lost;                   // told by a resume: "those of steps 3 to 8"; "": none
};

// `log_every_steps`: where a start does not say its own, as those of earlier versions. The check ends before
// the first line of a step behind `up_to_step`. Errors: ExitError(kMissingInput) for a file that cannot be
// read.
MetricsCheck CheckMetrics(const std::filesystem::path& path, std::int64_t log_every_steps,
                          std::int64_t up_to_step = std::numeric_limits<std::int64_t>::max());

// The key in a resume's line that says behind which step lines had been lost.
inline constexpr const char* kLostLines = "lines_lost_after_step";

// What a start goes on behind whose checkpoint of `step` has seen `committed_bytes` of the file.
struct MetricsLeft {
  std::int64_t bytes = 0;                         // the lines that are there up to that step
  std::optional<std::int64_t> lost_after_step{};  // lines behind this one are not there any more
};
// Errors: ExitError(kMissingInput) for a file that is there and cannot be read.
MetricsLeft LeftOfMetrics(const std::filesystem::path& path, std::int64_t committed_bytes, std::int64_t step,
                          std::int64_t log_every_steps);

}  // namespace plural::trainer
