#include "trainer/base/write_fault.h"

#include <array>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

namespace plural {

#ifdef PLURAL_FAULTS

WriteFault FaultOf(const std::filesystem::path& file) {
  const char* text = std::getenv("PLURAL_FAULT");
  if (text == nullptr) return WriteFault::kNone;
  // KIND@0:STEP; run/fault.h refuses what is wrong.
  constexpr std::string_view kOfRank0 = "@0:";
  const std::string_view fault = text;
  const std::size_t at = fault.find(kOfRank0);
  if (at == std::string_view::npos) return WriteFault::kNone;
  const std::string_view kind = fault.substr(0, at), number = fault.substr(at + kOfRank0.size());
  long long step = 0;
  std::from_chars(number.data(), number.data() + number.size(), step);
  std::array<char, 32> folder{};
  std::snprintf(folder.data(), folder.size(), "step-%08lld", step);
  const std::filesystem::path of = file.parent_path();
  if (of.parent_path().filename() != "checkpoints" ||
      of.filename().string().find(folder.data()) == std::string::npos) {
    return WriteFault::kNone;
  }
  return kind == "enospc" ? WriteFault::kNoSpace : kind == "torn" ? WriteFault::kTorn : WriteFault::kNone;
}

#else

WriteFault FaultOf(const std::filesystem::path& /*file*/) { return WriteFault::kNone; }

#endif

}  // namespace plural
