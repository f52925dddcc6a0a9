// Files with one JSON value per line, read as untrusted input.
//
// Owns: the limit of a line's length, skipping of empty lines, the place of an error. Does not own:
// what the values mean. Memory: one line. Thread rule: one thread.
#pragma once

#include <cstdint>
#include <fstream>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace plural {

class JsonLines {
 public:
  // Errors: ExitError(kMissingInput) for a file that cannot be read.
  explicit JsonLines(const std::string& path);

  // The next value; false at the end of the file. A line that is not JSON may be gone over by another call.
  // Errors: ExitError(kBadData) with file and line
  // number for a line that is too long or not JSON, ExitError(kMissingInput) for a file that cannot
  // be read to its end.
  bool Next(nlohmann::json& value);
  // The place of the last value, or of the line that was refused, such as "'file' line 3".
  std::string Where() const;
  // Bytes of the file up to the end of that line, and whether its line end is there.
  std::int64_t EndBytes() const { return end_bytes_; }
  bool IsWhole() const { return whole_; }

 private:
  std::string path_;
  std::ifstream stream_;
  std::vector<char> line_;
  std::int64_t number_ = 0, end_bytes_ = 0;
  bool whole_ = true;
};

}  // namespace plural
