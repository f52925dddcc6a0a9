// Regular expressions over module names, as Hugging Face PEFT writes them into adapter_config.json.
//
// Owns: the part of Python's `re` that says which names match: literals, '.', classes, groups, '|', repeats,
// '^', '$', \b, \B, look-ahead. Does not own: which names are asked. What captures or changes the rules
// (back-references, look-behind, flags, atomic and possessive parts) is refused. The time of a match is
// polynomial in pattern and name: a pattern comes from a file of somebody else. Thread rule: a value.
#pragma once

#include <bitset>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

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

  // Python's re.fullmatch. Errors: std::logic_error for a name longer than kMaxNameBytes.
  bool Matches(std::string_view name) const;

 private:
  using Characters = std::bitset<128>;
  using Positions = std::bitset<kMaxNameBytes + 1>;

  enum class Kind : std::uint8_t { kCharacter, kSequence, kChoice, kRepeat, kLook, kStart, kEnd, kBoundary };
  struct Node {
    Kind kind = Kind::kSequence;
    bool negated = false;                    // kLook, kBoundary
    Characters characters = {};              // kCharacter
    std::vector<std::size_t> children = {};  // indices into nodes_
    std::size_t least = 0, most = 0;         // kRepeat; kUnbounded
  };
  static constexpr std::size_t kUnbounded = static_cast<std::size_t>(-1);

  class Parser;
  class Matcher;

  std::vector<Node> nodes_;
  std::size_t root_ = 0;
};

}  // namespace plural::trainer
