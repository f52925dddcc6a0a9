#include "trainer/base/json_lines.h"

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string_view>
#include <system_error>

#include "trainer/base/error.h"
#include "trainer/base/json_io.h"

namespace plural {
namespace {

constexpr std::size_t kMaxLineBytes = std::size_t{64} << 20;

}  // namespace

JsonLines::JsonLines(const std::string& path)
    : path_(path), stream_(path, std::ios::binary), line_(kMaxLineBytes) {
  std::error_code error;
  if (!stream_ || std::filesystem::is_directory(path, error)) {
    throw ExitError(ExitCode::kMissingInput, "cannot read '" + path + "'");
  }
}

std::string JsonLines::Where() const { return "'" + path_ + "' line " + std::to_string(number_); }

bool JsonLines::Next(nlohmann::json& value) {
  for (;;) {
    stream_.getline(line_.data(), static_cast<std::streamsize>(line_.size()));
    auto size = static_cast<std::size_t>(stream_.gcount());
    if (stream_.bad()) throw ExitError(ExitCode::kMissingInput, "cannot read '" + path_ + "' to its end");
    if (stream_.eof() && size == 0) return false;
    ++number_;
    end_bytes_ += static_cast<std::int64_t>(size);
    whole_ = !stream_.eof();
    if (stream_.fail()) {
      throw ExitError(ExitCode::kBadData,
                      Where() + ": longer than " + std::to_string(kMaxLineBytes - 1) + " bytes");
    }
    if (!stream_.eof()) --size;  // the newline is counted
    const std::string_view text(line_.data(), size);
    if (text.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    value = ParseJson(text, Where());
    return true;
  }
}

}  // namespace plural
