// Regular expressions over module names, as Hugging Face PEFT writes them into adapter_config.json.
//
// Owns: the part of Python's `re` that says which names match, matched by PCRE2. Does not own: which names
// are asked, how often. Thread rule: a value.
//
// Supported are literals, '.', classes, groups, '|', repeats, '^', '$', \b, \B and look-ahead. Where PCRE2
// reads these otherwise than Python it is given another spelling: a brace that is no repeat, "{,n}", '['
// inside a class. Refused is all else, whether Python has it (flags, back-references, look-behind, possessive
// and atomic parts, comments, escapes of characters, letters outside ASCII) or PCRE2 alone ("(*VERB)", \K,
// \Q...\E, subroutines).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string_view>

struct pcre2_real_code_8;

namespace plural::trainer {

class ModulePattern {
 public:
  static constexpr std::size_t kMaxPatternBytes = 2048;
  static constexpr std::size_t kMaxNameBytes = 127;

  // What is wrong with a pattern, or not supported in it; the caller knows file and key.
  struct Error : std::runtime_error {
    using std::runtime_error::runtime_error;
  };

  explicit ModulePattern(std::string_view pattern);

  enum class Where { kWhole, kStart };  // Python's re.fullmatch, re.match
  // A pattern comes from a file of somebody else, and some need more steps than there is time: after
  // `most_steps` the name is given up. Errors: Error for that; std::logic_error for a name that is longer
  // than kMaxNameBytes or holds other characters than ASCII's printable ones without the space.
  bool Matches(std::string_view name, Where where = Where::kWhole,
               std::uint32_t most_steps = 1'000'000) const;

 private:
  std::shared_ptr<const pcre2_real_code_8> code_;
};

}  // namespace plural::trainer
