#include "trainer/recipe/scalar.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

namespace plural::trainer {
namespace {

bool IsDigit(char c) { return c >= '0' && c <= '9'; }

// Drops one sign; from_chars knows '-' but not '+'.
std::string_view WithoutSign(std::string_view text) {
  if (!text.empty() && (text[0] == '+' || text[0] == '-')) text.remove_prefix(1);
  return text;
}

std::string_view WithoutPlus(std::string_view text) {
  if (!text.empty() && text[0] == '+') text.remove_prefix(1);
  return text;
}

// 010 is ten to one reader and eight to another: refused rather than guessed.
bool HasLeadingZero(std::string_view digits) {
  return digits.size() > 1 && digits[0] == '0' && IsDigit(digits[1]);
}

// Length of the UTF-8 sequence at `text`, 0 when it is malformed (overlong forms, surrogates, beyond
// U+10FFFF).
std::size_t Utf8Length(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(0);
  if (lead < 0x80) return 1;
  const std::size_t length = lead < 0xC2 ? 0 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : lead < 0xF5 ? 4 : 0;
  if (length == 0 || text.size() < length) return 0;
  const unsigned char low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  const unsigned char high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  if (byte(1) < low || byte(1) > high) return 0;
  for (std::size_t i = 2; i < length; ++i) {
    if (byte(i) < 0x80 || byte(i) > 0xBF) return 0;
  }
  return length;
}

}  // namespace

std::optional<std::int64_t> ParseInteger(std::string_view text) {
  const std::string_view digits = WithoutSign(text);
  if (digits.empty() || !std::all_of(digits.begin(), digits.end(), IsDigit)) return std::nullopt;
  if (HasLeadingZero(digits)) return std::nullopt;
  const std::string_view signed_digits = WithoutPlus(text);
  std::int64_t value = 0;
  const auto [end, error] =
      std::from_chars(signed_digits.data(), signed_digits.data() + signed_digits.size(), value);
  if (error != std::errc() || end != signed_digits.data() + signed_digits.size()) return std::nullopt;
  return value;
}

std::optional<double> ParseNumber(std::string_view text) {
  const std::string_view unsigned_text = WithoutSign(text);
  // from_chars also reads "inf" and "nan".
  if (unsigned_text.empty() || !(IsDigit(unsigned_text[0]) || unsigned_text[0] == '.')) return std::nullopt;
  if (HasLeadingZero(unsigned_text)) return std::nullopt;
  const std::string_view number = WithoutPlus(text);
  double value = 0.0;
  const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), value);
  if (error != std::errc() || end != number.data() + number.size()) return std::nullopt;
  if (!std::isfinite(value)) return std::nullopt;
  return value;
}

std::optional<bool> ParseBoolean(std::string_view text) {
  if (text == "true") return true;
  if (text == "false") return false;
  return std::nullopt;
}

std::string FormatNumber(double value) {
  std::array<char, 32> buffer;
  const auto [end, error] = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value);
  std::string text(buffer.data(), end);
  // A number, not an integer, also to the eye.
  if (text.find_first_of(".e") == std::string::npos) text += ".0";
  return text;
}

std::string QuoteYaml(const std::string& text) {
  const auto safe = [](char c) {
    return IsDigit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == '/' ||
           c == '.' || c == '-';
  };
  const bool starts_like_a_word =
      !text.empty() && text[0] != '-' && !IsDigit(text[0]) && std::all_of(text.begin(), text.end(), safe);
  const bool means_something_else = text == "null" || text == "Null" || text == "NULL" ||
                                    ParseBoolean(text).has_value() || ParseNumber(text);
  if (starts_like_a_word && !means_something_else) return text;

  std::string out = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (byte < 0x20 || byte == 0x7F) {
      constexpr char kHex[] = "0123456789abcdef";
      out += "\\x";
      out += kHex[byte >> 4];
      out += kHex[byte & 15];
    } else {
      out += c;
    }
  }
  return out + "\"";
}

std::string Shortened(std::string_view text) {
  std::size_t cut = 60;
  if (text.size() <= cut) return std::string(text);
  while (cut > 0 && (static_cast<unsigned char>(text[cut]) & 0xC0) == 0x80) --cut;
  return std::string(text.substr(0, cut)) + "...";
}

std::size_t FirstBadUtf8(std::string_view text) {
  for (std::size_t i = 0; i < text.size();) {
    const std::size_t length = text[i] == '\0' ? 0 : Utf8Length(text.substr(i));
    if (length == 0) return i;
    i += length;
  }
  return std::string_view::npos;
}

}  // namespace plural::trainer
