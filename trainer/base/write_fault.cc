#include "trainer/base/write_fault.h"

#include <array>
#include <cstdio>
#include <cstdlib>
#include <string>

namespace plural {

#ifdef PLURAL_FAULTS

WriteFault FaultOf(const std::filesystem::path& file) {
  const char* text = std::getenv("PLURAL_FAULT");
  if (text == nullptr) return WriteFault::kNone;
  std::array<char, 16> kind{}, folder{};
  int rank = 0;
  long long step = 0;
  if (std::sscanf(text, "%15[a-z]@%d:%lld", kind.data(), &rank, &step) != 3 || rank != 0) {
    return WriteFault::kNone;  // run/fault.h refuses what is wrong
  }
  std::snprintf(folder.data(), folder.size(), "step-%08lld", step);
  const std::filesystem::path of = file.parent_path();
  if (of.parent_path().filename() != "checkpoints" ||
      of.filename().string().find(folder.data()) == std::string::npos) {
    return WriteFault::kNone;
  }
  const std::string name = kind.data();
  return name == "enospc" ? WriteFault::kNoSpace : name == "torn" ? WriteFault::kTorn : WriteFault::kNone;
}

#else

WriteFault FaultOf(const std::filesystem::path& /*file*/) { return WriteFault::kNone; }

#endif

}  // namespace plural
