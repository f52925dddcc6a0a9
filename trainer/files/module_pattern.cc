#include "trainer/files/module_pattern.h"

#include <algorithm>
#include <optional>
#include <utility>

namespace plural::trainer {
namespace {

constexpr int kMaxGroupDepth = 64;
constexpr std::size_t kMaxRepeat = 65535;

bool MatchesDigit(char c) { return c >= '0' && c <= '9'; }
bool IsLetter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
bool IsWord(char c) { return MatchesDigit(c) || IsLetter(c) || c == '_'; }
bool IsSpace(char c) { return c == ' ' || (c >= '\t' && c <= '\r') || (c >= '\x1c' && c <= '\x1f'); }

template <class Predicate>
std::bitset<128> CharactersWith(Predicate holds) {
  std::bitset<128> set;
  for (std::size_t c = 0; c < set.size(); ++c) set[c] = holds(static_cast<char>(c));
  return set;
}

}  // namespace

// Recursive descent: choice of sequences of repeated atoms.
class ModulePattern::Parser {
 public:
  Parser(std::string_view text, std::vector<Node>& nodes) : text_(text), nodes_(nodes) {}

  std::size_t Parse() {
    const std::size_t root = Choice();
    if (at_ < text_.size()) Fail("')' closes nothing");
    return root;
  }

 private:
  [[noreturn]] void Fail(const std::string& what) const {
    throw Error(what + " (byte " + std::to_string(at_ + 1) + ")");
  }
  bool More() const { return at_ < text_.size(); }
  bool Take(std::string_view expected) {
    if (!text_.substr(at_).starts_with(expected)) return false;
    at_ += expected.size();
    return true;
  }
  std::size_t Add(Node node) {
    nodes_.push_back(std::move(node));
    return nodes_.size() - 1;
  }
  std::size_t AddCharacters(const Characters& set) {
    return Add({.kind = Kind::kCharacter, .characters = set});
  }

  std::size_t Choice() {
    if (++depth_ > kMaxGroupDepth)
      Fail("groups are nested deeper than " + std::to_string(kMaxGroupDepth) + " levels");
    Node choice{.kind = Kind::kChoice};
    do choice.children.push_back(Sequence());
    while (Take("|"));
    --depth_;
    return choice.children.size() == 1 ? choice.children.front() : Add(std::move(choice));
  }

  std::size_t Sequence() {
    Node sequence{.kind = Kind::kSequence};
    while (More() && text_[at_] != '|' && text_[at_] != ')') sequence.children.push_back(Repeated());
    return Add(std::move(sequence));
  }

  std::size_t Repeated() {
    const std::size_t atom = Atom();
    const auto range = Range();
    if (!range) return atom;
    if (Take("+")) Fail("a possessive repeat is not supported");
    Take("?");  // lazy: matters for what is captured, not for whether there is a match
    const Kind kind = nodes_[atom].kind;
    if (kind == Kind::kStart || kind == Kind::kEnd || kind == Kind::kBoundary) Fail("an anchor is repeated");
    if (Range()) Fail("a repeat is repeated");
    return Add({.kind = Kind::kRepeat, .children = {atom}, .least = range->first, .most = range->second});
  }

  // The repeat that begins here. A brace that is none is a literal, as in Python.
  std::optional<std::pair<std::size_t, std::size_t>> Range() {
    if (Take("*")) return {{0, kUnbounded}};
    if (Take("+")) return {{1, kUnbounded}};
    if (Take("?")) return {{0, 1}};
    const std::size_t start = at_;
    if (!Take("{")) return std::nullopt;
    const auto least = Number();
    const bool comma = Take(",");
    const auto most = comma ? Number() : least;
    if (!Take("}") || (!comma && !least)) {
      at_ = start;
      return std::nullopt;
    }
    if (most && *most < least.value_or(0)) Fail("a repeat's largest count is below its smallest");
    return {{least.value_or(0), most.value_or(kUnbounded)}};
  }

  std::optional<std::size_t> Number() {
    std::optional<std::size_t> number;
    for (; More() && MatchesDigit(text_[at_]); ++at_) {
      number = number.value_or(0) * 10 + static_cast<std::size_t>(text_[at_] - '0');
      if (*number > kMaxRepeat) Fail("a repeat of more than " + std::to_string(kMaxRepeat));
    }
    return number;
  }

  std::size_t Atom() {
    if (Take("(")) return Group();
    if (Take("[")) return AddCharacters(Class());
    if (Take("^")) return Add({.kind = Kind::kStart});
    if (Take("$")) return Add({.kind = Kind::kEnd});
    if (Take("\\b")) return Add({.kind = Kind::kBoundary});
    if (Take("\\B")) return Add({.kind = Kind::kBoundary, .negated = true});
    if (Take(".")) return AddCharacters(CharactersWith([](char c) { return c != '\n'; }));
    if (Take("\\")) return AddCharacters(Escaped());
    if (text_[at_] == '*' || text_[at_] == '+' || text_[at_] == '?') Fail("nothing to repeat");
    return AddCharacters(Characters().set(Literal()));
  }

  std::size_t Group() {
    std::size_t inside = 0;
    if (Take("?=") || Take("?!")) {
      const bool negated = text_[at_ - 1] == '!';
      const std::size_t looked = Choice();
      inside = Add({.kind = Kind::kLook, .negated = negated, .children = {looked}});
    } else {
      if (Take("?P<")) {
        while (More() && IsWord(text_[at_])) ++at_;
        if (!Take(">")) Fail("the name of a group must end with '>'");
      } else if (!Take("?:") && More() && text_[at_] == '?') {
        Fail("of the groups that begin with '(?', those with ':', '=', '!' and 'P<name>' are supported");
      }
      inside = Choice();
    }
    if (!Take(")")) Fail("a group is not closed");
    return inside;
  }

  std::size_t Literal() {
    if (!More()) Fail("the pattern ends too early");
    const auto c = static_cast<unsigned char>(text_[at_]);
    if (c >= 128) Fail("only ASCII characters are supported");
    ++at_;
    return c;
  }

  // Behind a backslash.
  Characters Escaped() {
    const auto c = static_cast<char>(Literal());
    switch (c) {
      case 'd':
        return CharactersWith(MatchesDigit);
      case 'D':
        return ~CharactersWith(MatchesDigit);
      case 'w':
        return CharactersWith(IsWord);
      case 'W':
        return ~CharactersWith(IsWord);
      case 's':
        return CharactersWith(IsSpace);
      case 'S':
        return ~CharactersWith(IsSpace);
      default:
        if (IsLetter(c) || MatchesDigit(c)) Fail(std::string("\\") + c + " is not supported");
        return Characters().set(static_cast<std::size_t>(c));
    }
  }

  // Behind "[".
  Characters Class() {
    const bool negated = Take("^");
    Characters set;
    bool first = true;  // a ']' at the start is a literal
    while (first || !Take("]")) {
      first = false;
      if (!More()) Fail("a class is not closed");
      const Characters low = Take("\\") ? Escaped() : Characters().set(Literal());
      const bool range = at_ + 1 < text_.size() && text_[at_] == '-' && text_[at_ + 1] != ']';
      if (!range) {
        set |= low;
        continue;
      }
      Take("-");
      const Characters high = Take("\\") ? Escaped() : Characters().set(Literal());
      const auto [from, to] = std::pair(Only(low), Only(high));
      if (from > to) Fail("a range of a class goes backwards");
      for (std::size_t c = from; c <= to; ++c) set.set(c);
    }
    return negated ? ~set : set;
  }

  std::size_t Only(const Characters& set) const {
    if (set.count() != 1) Fail("a range of a class needs two characters");
    std::size_t c = 0;
    while (!set[c]) ++c;
    return c;
  }

  std::string_view text_;
  std::vector<Node>& nodes_;
  std::size_t at_ = 0;
  int depth_ = 0;
};

// Where a node that begins at a position may end, each pair computed once.
class ModulePattern::Matcher {
 public:
  Matcher(const std::vector<Node>& nodes, std::string_view name)
      : nodes_(nodes), name_(name), ends_(nodes.size() * (name.size() + 1)) {}

  const Positions& Ends(std::size_t node, std::size_t at) {
    std::optional<Positions>& known = ends_[node * (name_.size() + 1) + at];
    if (!known) known = Compute(nodes_[node], at);
    return *known;
  }

 private:
  Positions Compute(const Node& node, std::size_t at) {
    Positions here;
    here.set(at);
    const auto if_true = [&here](bool holds) { return holds ? here : Positions(); };
    switch (node.kind) {
      case Kind::kCharacter: {
        const auto c = at < name_.size() ? static_cast<unsigned char>(name_[at]) : 0;
        return at < name_.size() && c < 128 && node.characters[c] ? here << 1 : Positions();
      }
      case Kind::kSequence: {
        for (const std::size_t child : node.children) here = Step(child, here);
        return here;
      }
      case Kind::kChoice: {
        Positions ends;
        for (const std::size_t child : node.children) ends |= Ends(child, at);
        return ends;
      }
      case Kind::kRepeat:
        return Repeat(node, here);
      case Kind::kLook:
        return if_true(Ends(node.children.front(), at).any() != node.negated);
      case Kind::kStart:
        return if_true(at == 0);
      case Kind::kEnd:
        return if_true(at == name_.size());
      case Kind::kBoundary: {
        const bool before = at > 0 && IsWord(name_[at - 1]);
        const bool after = at < name_.size() && IsWord(name_[at]);
        return if_true((before != after) != node.negated);
      }
    }
    throw std::logic_error("ModulePattern: unknown kind of node");
  }

  Positions Step(std::size_t node, const Positions& from) {
    Positions to;
    for (std::size_t at = 0; at <= name_.size(); ++at) {
      if (from[at]) to |= Ends(node, at);
    }
    return to;
  }

  // A round that moves nothing is the last that matters: positions never go back, so that comes soon.
  Positions Repeat(const Node& node, Positions here) {
    const std::size_t child = node.children.front();
    for (std::size_t round = 0; round < node.least; ++round) {
      const Positions next = Step(child, here);
      if (next == here) break;
      here = next;
    }
    for (std::size_t round = node.least; round < node.most; ++round) {
      const Positions next = here | Step(child, here);
      if (next == here) break;
      here = next;
    }
    return here;
  }

  const std::vector<Node>& nodes_;
  std::string_view name_;
  std::vector<std::optional<Positions>> ends_;
};

ModulePattern::ModulePattern(std::string_view pattern) {
  if (pattern.size() > kMaxPatternBytes) {
    throw Error(std::to_string(pattern.size()) + " bytes; at most " + std::to_string(kMaxPatternBytes) +
                " are supported");
  }
  root_ = Parser(pattern, nodes_).Parse();
}

bool ModulePattern::Matches(std::string_view name) const {
  if (name.size() > kMaxNameBytes) throw std::logic_error("ModulePattern: the name is too long");
  return Matcher(nodes_, name).Ends(root_, 0)[name.size()];
}

}  // namespace plural::trainer
