#include "trainer/files/module_pattern.h"

#include <gtest/gtest.h>

#include <string>
#include <tuple>
#include <vector>

namespace plural::trainer {
namespace {

constexpr const char* kQuery = "model.layers.10.self_attn.q_proj";

// What Python's re.fullmatch says.
TEST(ModulePatternTest, MatchesAsPython) {
  const std::vector<std::tuple<const char*, const char*, bool>> cases = {
      {"lm_head", "lm_head", true},
      {"lm_head", "lm_heads", false},
      {".*", "", true},
      {"", "", true},
      {"", "a", false},
      {".*q_proj", kQuery, true},
      {"q_proj", kQuery, false},
      {R"(.*\.(q|v)_proj$)", kQuery, true},
      {R"(.*\.(k|v)_proj$)", kQuery, false},
      {R"(model\.layers\.\d+\.(self_attn\.(q|k|v|o)|mlp\.(gate|up|down))_proj)", kQuery, true},
      {R"(model\.layers\.\d\..*)", kQuery, false},
      {R"(model\.layers\.[0-9]{2}\..*)", kQuery, true},
      {R"(model\.layers\.(?:[2-9]|1\d)\..*)", kQuery, true},
      {R"((?:\bmodel\.layers\.[\d]{1,}\.(?:self_attn|mlp)\.(?:(?:q_proj|v_proj))))", kQuery, true},
      {R"(.*?layers.*?attn.*?)", kQuery, true},
      {R"((?!.*self_attn).*proj)", kQuery, false},
      {R"((?!.*mlp).*proj)", kQuery, true},
      {R"((?=model).*(?=proj)proj)", kQuery, true},
      {R"((.*\.)?(^model.*q_proj)$)", kQuery, true},
      {R"((.*\.)?(q_proj)$)", kQuery, true},
      {R"((?P<idx>[a-z_.]+)\d+[^0-9]+)", kQuery, true},
      {"[]a]+", "a]", true},
      {"[^]a]+", "b", true},
      {"[^]a]+", "]", false},
      {"[a-c-]+", "b-", true},
      {R"([\w.]+)", kQuery, true},
      {R"(\w+)", kQuery, false},
      {R"(a\Bb)", "ab", true},
      {R"(a\bb)", "ab", false},
      {"a{2}", "aa", true},
      {"a{2}", "aaa", false},
      {"a{2,}", "aaa", true},
      {"a{,2}", "", true},
      {"a{,2}", "aaa", false},
      {"a{1,2}b", "aab", true},
      {"a{x}", "a{x}", true},
      {"{}", "{}", true},
      {"a{,x}", "a{,x}", true},
      {"a{,}", "aaa", true},
      {"a{1,2}?", "aa", true},
      // Where PCRE2 reads the pattern itself otherwise.
      {"[[:alpha:]", "a", true},
      {"[[:alpha:]]", "a", false},
      {"[[:alpha:]]", ":]", true},
      {"[.a.]", ".", true},
      {"[[=a=]]", "=]", true},
      {"[a-c-e]", "-", true},
      {"[a-c-e]", "d", false},
      {"[--0]", ".", true},
      {"(a|ab)(c|bcd)(d*)", "abcd", true},
      {"(a*)*b", "aab", true},
      {"(a?){3}", "aa", true},
      {"(|a)+", "aaa", true},
      {"a|", "", true},
      {"a^b", "ab", false},
  };
  for (const auto& [pattern, name, expected] : cases) {
    EXPECT_EQ(ModulePattern(pattern).Matches(name), expected) << pattern << " on " << name;
  }
}

TEST(ModulePatternTest, RefusesWhatIsWrongOrNotSupported) {
  for (const char* pattern : {"(", ")", "a)(", "[", "[a", "[]", "*", "+a", "a**", "a*+", "a{1}{2}", "a{2,1}",
                              "a{99999}", "\\", "\\1", "\\A", "\\p", "(?i)a", "(?<=a)b", "(?<!a)b", "(?P=x)",
                              "(?P<x", "(?>a)", "[b-a]", "[\\d-z]", "\xC3\xA4", "^*", "(?",
                              // PCRE2's own.
                              "(*UTF)a", "(*ACCEPT)", "\\Qa\\E", "\\Ka", "\\Ra", "\\ha", "\\Na", "(?|a)",
                              "(?R)?", "(?1)", "(?<n>a)", "(?P>n)", "(?'n'a)", "(?C)a", "\\x{61}"}) {
    EXPECT_THROW(ModulePattern{pattern}, ModulePattern::Error) << pattern;
  }
  EXPECT_THROW(ModulePattern{std::string(3000, 'a')}, ModulePattern::Error);
  EXPECT_THROW(ModulePattern{std::string(1000, '(')}, ModulePattern::Error);
  EXPECT_THROW(ModulePattern{"a"}.Matches(std::string(200, 'a')), std::logic_error);
}

// re.match: the rest of a name may be anything.
TEST(ModulePatternTest, MatchesAtTheStart) {
  EXPECT_TRUE(ModulePattern("lm").Matches("lm_head", ModulePattern::Where::kStart));
  EXPECT_FALSE(ModulePattern("head").Matches("lm_head", ModulePattern::Where::kStart));
  EXPECT_FALSE(ModulePattern("lm$").Matches("lm_head", ModulePattern::Where::kStart));
}

// Every way of a nested repeat, tried one after the other, would take longer than there is time.
TEST(ModulePatternTest, NestedRepeatsAreGivenUp) {
  const std::string name(100, 'a');
  EXPECT_THROW(ModulePattern("((((a*)*)*)*)*[bc]").Matches(name), ModulePattern::Error);
  EXPECT_THROW(ModulePattern("((a|aa)+)+[bc]").Matches(name), ModulePattern::Error);
  EXPECT_THROW(ModulePattern("(((a?){60000}){60000}){60000}"), ModulePattern::Error);
  EXPECT_FALSE(ModulePattern("((a{2}){3}){5}").Matches(name));
  // Some hundred steps are enough for what people write.
  EXPECT_TRUE(ModulePattern(R"((.*\.)?(.*layers\.\d+\..*(q|k)_proj)$)")
                  .Matches(kQuery, ModulePattern::Where::kStart, 500));
}

}  // namespace
}  // namespace plural::trainer
