#define PCRE2_CODE_UNIT_WIDTH 8
#include "trainer/files/module_pattern.h"

#include <pcre2.h>

#include <algorithm>
#include <array>
#include <new>
#include <optional>
#include <string>
#include <utility>

namespace plural::trainer {
namespace {

constexpr std::uint32_t kMaxHeapKiB = 4096;  // where a match notes what it may have to come back to

bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsLetter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
bool IsPrintable(char c) { return c > ' ' && c <= '~'; }

// A pattern in the spelling that PCRE2 reads as Python reads the pattern. What both read alike is left to
// PCRE2 to check: that groups and classes are closed, ranges and counts in order.
class Spelling {
 public:
  explicit Spelling(std::string_view text) : text_(text) {}

  std::string ForPcre2() {
    while (at_ < text_.size()) {
      if (Take("[")) {
        Class();
      } else if (Take("(")) {
        Group();
      } else if (Take("\\b") || Take("\\B") || Take("^") || Take("$") || Take("|")) {
        repeatable_ = false;
      } else if (const auto repeat = TakeRepeat()) {
        Repeat(*repeat);
      } else {
        if (text_[at_] == '{') result_ += '\\';
        Character();
        repeatable_ = true;
      }
    }
    return std::move(result_);
  }

 private:
  [[noreturn]] void Fail(const std::string& what) const {
    throw ModulePattern::Error(what + " (byte " + std::to_string(at_ + 1) + ")");
  }
  bool Ahead(std::string_view expected) const { return text_.substr(at_).starts_with(expected); }
  bool Take(std::string_view expected) {
    if (!Ahead(expected)) return false;
    at_ += expected.size();
    result_ += expected;
    return true;
  }

  // One character, or a backslash and what it makes a literal or a class of.
  void Character() {
    const bool escaped = Take("\\");
    if (at_ == text_.size()) Fail("the pattern ends too early");
    const char c = text_[at_];
    if (static_cast<unsigned char>(c) >= 128) Fail("only ASCII characters are supported");
    if (escaped && (IsDigit(c) || IsLetter(c)) &&
        std::string_view("dDwWsS").find(c) == std::string_view::npos) {
      Fail(std::string("\\") + c + " is not supported");
    }
    Take(text_.substr(at_, 1));
  }

  void Class() {
    Take("^");
    for (bool first = true; at_ < text_.size() && (first || !Ahead("]")); first = false) {
      // "[:", "[." and "[=" begin nothing in Python.
      if (Ahead("[") || Ahead(":") || Ahead(".") || Ahead("=")) result_ += '\\';
      Character();
    }
    Take("]");
    repeatable_ = true;
  }

  void Group() {
    if (Ahead("?") && !Take("?:") && !Take("?=") && !Take("?!") && !Take("?P<")) {
      Fail("of the groups that begin with '(?', those with ':', '=', '!' and 'P<name>' are supported");
    }
    repeatable_ = false;
  }

  // In PCRE2's spelling. A brace that begins no repeat is a literal.
  std::optional<std::string> TakeRepeat() {
    if (Ahead("*") || Ahead("+") || Ahead("?")) return std::string(1, text_[at_++]);
    if (!Ahead("{")) return std::nullopt;
    std::size_t next = at_ + 1;
    const auto count = [&] {
      const std::size_t begin = next;
      while (next < text_.size() && IsDigit(text_[next])) ++next;
      return std::string(text_.substr(begin, next - begin));
    };
    std::string least = count(), most;
    if (text_.substr(next).starts_with(",")) {
      ++next;
      if (least.empty()) least = "0";
      most = "," + count();
    }
    if (least.empty() || !text_.substr(next).starts_with("}")) return std::nullopt;
    at_ = next + 1;
    return "{" + least + most + "}";
  }

  void Repeat(const std::string& repeat) {
    if (!repeatable_) Fail("nothing to repeat");
    result_ += repeat;
    Take("?");  // lazy
    if (Ahead("+")) Fail("a possessive repeat is not supported");
    repeatable_ = false;
  }

  std::string_view text_;
  std::size_t at_ = 0;
  bool repeatable_ = false;  // what came last
  std::string result_;
};

}  // namespace

ModulePattern::ModulePattern(std::string_view pattern) {
  if (pattern.size() > kMaxPatternBytes) {
    throw Error(std::to_string(pattern.size()) + " bytes; at most " + std::to_string(kMaxPatternBytes) +
                " are supported");
  }
  const std::string text = Spelling(pattern).ForPcre2();
  int error = 0;
  std::size_t at = 0;
  code_.reset(
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(),
                    PCRE2_NEVER_UTF | PCRE2_NEVER_UCP | PCRE2_NEVER_BACKSLASH_C | PCRE2_NO_AUTO_CAPTURE,
                    &error, &at, nullptr),
      pcre2_code_free);
  if (code_) return;
  std::array<PCRE2_UCHAR, 256> what{};
  pcre2_get_error_message(error, what.data(), what.size());
  throw Error(reinterpret_cast<const char*>(what.data()));
}

bool ModulePattern::Matches(std::string_view name, Where where, std::uint32_t most_steps) const {
  if (name.size() > kMaxNameBytes || !std::all_of(name.begin(), name.end(), IsPrintable)) {
    throw std::logic_error("ModulePattern: no name of a module");
  }
  const std::unique_ptr<pcre2_match_context, decltype(&pcre2_match_context_free)> limits(
      pcre2_match_context_create(nullptr), pcre2_match_context_free);
  const std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> found(
      pcre2_match_data_create(1, nullptr), pcre2_match_data_free);
  if (!limits || !found) throw std::bad_alloc();
  pcre2_set_match_limit(limits.get(), most_steps);
  pcre2_set_depth_limit(limits.get(), most_steps);
  pcre2_set_heap_limit(limits.get(), kMaxHeapKiB);
  const std::uint32_t options = PCRE2_ANCHORED | (where == Where::kWhole ? PCRE2_ENDANCHORED : 0U);
  const int result = pcre2_match(code_.get(), reinterpret_cast<PCRE2_SPTR>(name.data()), name.size(), 0,
                                 options, found.get(), limits.get());
  if (result >= 0) return true;
  if (result == PCRE2_ERROR_NOMATCH) return false;
  throw Error("it takes too many steps to match '" + std::string(name) + "'");
}

}  // namespace plural::trainer
