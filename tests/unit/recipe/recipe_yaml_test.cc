#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "trainer/base/error.h"
#include "trainer/recipe/scalar.h"
#include "trainer/recipe/yaml_document.h"

namespace plural::trainer {
namespace {

std::string ErrorOf(const std::string& text) {
  try {
    ParseYaml(text, "x.yaml");
  } catch (const ExitError& error) {
    EXPECT_EQ(error.Code(), ExitCode::kBadRecipe);
    return error.what();
  }
  return "accepted";
}

std::string Repeat(const std::string& text, int times) {
  std::string out;
  for (int i = 0; i < times; ++i) out += text;
  return out;
}

TEST(RecipeYaml, KeepsStructurePlaceAndQuotes) {
  const YamlNode root = ParseYaml("a: 1\nb:\n  - x\n  - \"2\"\nc: {d: ~}\n", "x.yaml");
  ASSERT_TRUE(root.IsMap());
  ASSERT_EQ(root.entries.size(), 3U);
  EXPECT_EQ(root.entries[0].key, "a");
  EXPECT_EQ(root.entries[0].value.text, "1");
  EXPECT_FALSE(root.entries[0].value.quoted);
  const YamlNode& list = root.entries[1].value;
  EXPECT_EQ(list.line, 2) << "a value stands where its key does";
  EXPECT_EQ(list.items[1].line, 4);
  EXPECT_EQ(list.items[1].column, 5);
  EXPECT_TRUE(list.items[1].quoted);
  EXPECT_TRUE(root.entries[2].value.entries[0].value.IsNull());
  EXPECT_TRUE(ParseYaml("", "x").IsNull());
  EXPECT_TRUE(ParseYaml("# only words\n", "x").IsNull());
}

TEST(RecipeYaml, RefusesWhatARecipeMayNotUse) {
  const std::string bomb =
      "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n"
      "d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: [*e,*e,*e,*e,*e,*e,*e]\n";
  const struct {
    std::string text, place, message;
  } cases[] = {
      {bomb, "x.yaml:1:4", "anchors"},
      {"a: &x [*x]\n", "x.yaml:1:4", "anchors"},
      {"&x a: 1\n", "x.yaml:1:1", "anchors"},
      {"a: &x ~\n", "x.yaml:1:4", "anchors"},
      {"a: 1\n<<: {b: 2}\n", "x.yaml:2:1", "merge keys"},
      {"a: 1\nb: 2\na: 3\n", "x.yaml:3:1", "first on line 1"},
      {"s: {a: 1, \"a\": 2}\n", "x.yaml:1:11", "a second time"},
      {"a: !!int 1\n", "x.yaml:1:4", "tags"},
      {"a: !!python/object:os.system x\n", "x.yaml:1:4", "tags"},
      {"a: !mine {b: 1}\n", "x.yaml:1:4", "tags"},
      {"a: !!seq [1]\n", "x.yaml:1:4", "tags"},
      {"a: 1\n---\nb: 2\n", "x.yaml:2:1", "second document"},
      {"? [a, b]\n: 1\n", "x.yaml:1:3", "key must be a word"},
      {"? {a: 1}\n: 1\n", "x.yaml:1:3", "key must be a word"},
      {"~: 1\n", "x.yaml:1:1", "key must be a word"},
      {"\"\": 1\n", "x.yaml:1:1", "key must be a word"},
      {"a: [1\n", "x.yaml:", "not valid YAML"},
      {"a: b: c\n", "x.yaml:1:5", "not valid YAML"},
      {"a:\n\t- 1\n", "x.yaml:", "not valid YAML"},
      {"a: *nowhere\n", "x.yaml:", ""},
      {"a: " + Repeat("[", kMaxYamlDepth) + Repeat("]", kMaxYamlDepth), "x.yaml:1:", "deeper than 32"},
      {Repeat("[", 100'000) + Repeat("]", 100'000), "x.yaml:1:", "deeper than 32"},
      {Repeat("[", 100'000), "x.yaml:1:", "bracket left open"},
      {Repeat("{a: ", 5'000) + Repeat("}", 5'000), "x.yaml:1:", "deeper than 32"},
      {Repeat("{a: ", 5'000), "x.yaml:1:", "bracket left open"},
      {"a: [" + Repeat("1,", kMaxYamlNodes) + "]", "x.yaml:1:", "more than 10000 values"},
      {"a: \xff\n", "x.yaml:1:1", "UTF-8"},
      {std::string("a: b\nc: \0\n", 10), "x.yaml:2:1", "UTF-8"},
  };
  for (const auto& test : cases) {
    const std::string error = ErrorOf(test.text);
    const std::string shown = test.text.substr(0, 40);
    EXPECT_EQ(error.rfind(test.place, 0), 0U) << shown << " -> " << error;
    EXPECT_NE(error.find(test.message), std::string::npos) << shown << " -> " << error;
    EXPECT_EQ(error.find('\n'), std::string::npos) << shown << " -> " << error;
  }
}

TEST(RecipeYaml, NamesATabForWhatItIs) {
  EXPECT_NE(ErrorOf("a: 1\nb:\n\tc: 2\n").find("x.yaml:3"), std::string::npos);
  EXPECT_NE(ErrorOf("a: 1\nb:\n\tc: 2\n").find("a tab stands before the text"), std::string::npos);
  EXPECT_EQ(ErrorOf("a: 1\n  b:\n    c: 2\n").find("a tab"), std::string::npos);
  EXPECT_EQ(ErrorOf("a: {b\tc: ]}\n").find("a tab"), std::string::npos)
      << "a tab behind text is not at fault";
}

TEST(RecipeYaml, AllowsTheDeepestNesting) {
  EXPECT_EQ(ErrorOf(Repeat("[", kMaxYamlDepth) + Repeat("]", kMaxYamlDepth)), "accepted");
}

TEST(RecipeYaml, ReadsOnlyRegularFilesOfBoundedSize) {
  const std::filesystem::path folder =
      std::filesystem::temp_directory_path() / ("plural_yaml_" + std::to_string(getpid()));
  std::filesystem::create_directories(folder);
  const auto code_of = [](const std::filesystem::path& path) {
    try {
      ReadYamlFile(path);
      return ExitCode::kDone;
    } catch (const ExitError& error) {
      return error.Code();
    }
  };
  std::ofstream(folder / "fits.yaml") << std::string(kMaxYamlBytes, '#');
  std::ofstream(folder / "big.yaml") << std::string(kMaxYamlBytes + 1, '#');
  EXPECT_EQ(code_of(folder / "fits.yaml"), ExitCode::kDone);
  EXPECT_EQ(code_of(folder / "big.yaml"), ExitCode::kBadRecipe);
  EXPECT_EQ(code_of(folder / "absent.yaml"), ExitCode::kMissingInput);
  EXPECT_EQ(code_of(folder), ExitCode::kMissingInput);
  EXPECT_EQ(code_of("/dev/zero"), ExitCode::kMissingInput);
  std::filesystem::remove_all(folder);
}

TEST(RecipeScalar, ReadsDecimalNumbersOnly) {
  for (const auto& [text, value] : std::initializer_list<std::pair<const char*, std::int64_t>>{
           {"0", 0}, {"-7", -7}, {"+7", 7}, {"9223372036854775807", INT64_MAX}}) {
    EXPECT_EQ(ParseInteger(text), value) << text;
  }
  for (const char* text : {"", "+", "-", "010", "0x10", "0o10", "1e3", "1_000", "2.0", " 1", "1 ", "+-1",
                           "--1", "9223372036854775808", "1\n", "١"}) {
    EXPECT_EQ(ParseInteger(text), std::nullopt) << text;
  }
  for (const auto& [text, value] : std::initializer_list<std::pair<const char*, double>>{{"5e-5", 5e-5},
                                                                                         {"5.0E-5", 5e-5},
                                                                                         {".5", .5},
                                                                                         {"5.", 5.0},
                                                                                         {"-1", -1.0},
                                                                                         {"+1.5e+2", 150.0},
                                                                                         {"0.1", 0.1}}) {
    EXPECT_EQ(ParseNumber(text), value) << text;
  }
  for (const char* text : {"", ".", "e5", "1e", ".nan", ".inf", "nan", "inf", "-inf", "infinity", "0x1p3",
                           "1e999", "010.5", "1,5", "1 000", "+-1", "1f"}) {
    EXPECT_EQ(ParseNumber(text), std::nullopt) << text;
  }
  for (const char* text : {"yes", "no", "on", "off", "y", "True", "TRUE", "1", "0", ""}) {
    EXPECT_EQ(ParseBoolean(text), std::nullopt) << text;
  }
}

TEST(RecipeScalar, QuotedTextReadsBackAsItself) {
  for (const std::string text :
       {"runs/a.b-c", "",         "a b",  " a", "null", "~",    "true", "1e5",        "0x10",
        "-",          "- a",      "a: b", "#x", "a#b",  "'",    "\"",   "\\",         "a\nb\tc\r",
        "*x",         "&x",       "!x",   "%x", "@x",   "`x",   "{a}",  "[a]",        "a,b",
        "é ü 日本",   "\x01\x7f", "=",    "<<", "?",    ".nan", ".5",   "$(rm -rf x)"}) {
    const YamlNode root = ParseYaml("k: " + QuoteYaml(text) + "  # origin\n", "x.yaml");
    ASSERT_TRUE(root.IsMap()) << text;
    EXPECT_TRUE(root.entries[0].value.IsScalar()) << text;
    EXPECT_EQ(root.entries[0].value.text, text);
  }
}

TEST(RecipeScalar, NumbersReadBackAsThemselves) {
  for (const double value : {5e-5, 0.1, 1.0, 1e-8, 0.999, 1.0 / 3.0, 1e300, 0.0}) {
    EXPECT_EQ(ParseNumber(FormatNumber(value)), value) << FormatNumber(value);
  }
}

}  // namespace
}  // namespace plural::trainer
