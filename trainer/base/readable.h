// Numbers, shown to people.
//
// Owns: plurals, how many digits are shown. Does not own: figures of record, which keep all digits
// (run/metrics.h). Thread rule: pure.
#pragma once

#include <cstdint>
#include <string>

namespace plural {

// "1 prompt", "12 prompts": the noun takes an s.
std::string Counted(std::int64_t count, const std::string& noun);
// Four significant digits: "10.36", "31630", "4.714e-13", "0".
std::string FourDigits(double value);

}  // namespace plural
