// Files of one JSON value a line, read with distrust.
//
// Owns: lines of bounded length, empty ones passed over, the place of a mistake. Does not own: what the
// values mean. Memory: one line. Thread rule: one thread.
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

  // The next value; false at the end of the file. Errors: ExitError(kBadData) with file and line number for
  // what is not JSON, ExitError(kMissingInput) for a file that cannot be read to its end.
  bool Next(nlohmann::json& value);
  // "'file' line 3", of the last value.
  std::string Where() const;

 private:
  std::string path_;
  std::ifstream stream_;
  std::vector<char> line_;
  std::int64_t number_ = 0;
};

}  // namespace plural
