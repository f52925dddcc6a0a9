#include "trainer/base/readable.h"

#include <cmath>
#include <cstdio>

namespace plural {

std::string Counted(std::int64_t count, const std::string& noun) {
  return std::to_string(count) + " " + noun + (count == 1 ? "" : "s");
}

std::string FourDigits(double value) {
  char text[48];
  // %g would write 31630 as 3.163e+04.
  const bool large = std::abs(value) >= 1e4 && std::abs(value) < 1e9;
  std::snprintf(text, sizeof(text), large ? "%.0f" : "%.4g", value);
  return text;
}

}  // namespace plural
