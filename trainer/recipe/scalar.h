// Scalars: the one reading of a number, and the one way to write a value.
//
// Owns: decimal numbers and true/false, nothing of YAML 1.1's octal, hexadecimal, .nan, yes or on;
// quoting; UTF-8. Does not own: ranges (schema.h). Thread rule: pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace plural::trainer {

// [+-]digits without a leading zero, within int64; nullopt for all else.
std::optional<std::int64_t> ParseInteger(std::string_view text);
// A finite decimal number (5, 0.5, .5, 5e-5), without a leading zero before a digit; nullopt for all
// else, also when it does not fit a double.
std::optional<double> ParseNumber(std::string_view text);
std::optional<bool> ParseBoolean(std::string_view text);

// The shortest text that reads back as the same double.
std::string FormatNumber(double value);
// `text` as a YAML scalar that reads back as the same text: plain where that is safe, else in double quotes.
std::string QuoteYaml(const std::string& text);
// At most some 60 bytes of `text`, "..." after a cut, never through a UTF-8 sequence.
std::string Shortened(std::string_view text);

// Where the first byte stands that is zero or not part of well-formed UTF-8; npos when none does.
std::size_t FirstBadUtf8(std::string_view text);

}  // namespace plural::trainer
