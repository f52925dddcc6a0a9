// What the schema says about its keys in words: for errors, `plural validate --keys` and docs/recipes.md.
#include <limits>
#include <string>
#include <vector>

#include "trainer/recipe/scalar.h"
#include "trainer/recipe/schema.h"

namespace plural::trainer {
namespace {

using nlohmann::json;

std::string Joined(const std::vector<std::string>& words, const std::string& between) {
  std::string out;
  for (const std::string& word : words) out += (out.empty() ? "" : between) + word;
  return out;
}

// Whole numbers without ".0": ranges are read by people.
std::string LimitText(double limit) {
  if (limit == static_cast<double>(static_cast<std::int64_t>(limit)) && limit < 1e7) {
    return std::to_string(static_cast<std::int64_t>(limit));
  }
  return FormatNumber(limit);
}

}  // namespace

std::string Range::Text() const {
  const bool has_low = low > -std::numeric_limits<double>::infinity();
  const bool has_high = high < std::numeric_limits<double>::infinity();
  if (has_low && has_high) {
    return std::string("in ") + (low_open ? "(" : "[") + LimitText(low) + ", " + LimitText(high) +
           (high_open ? ")" : "]");
  }
  if (has_low) return (low_open ? "> " : ">= ") + LimitText(low);
  return "";
}

std::string Key::TypeText() const {
  const std::string limits = range.Text().empty() ? "" : " " + range.Text();
  switch (type) {
    case KeyType::kText:
      return "text";
    case KeyType::kInteger:
      return "integer" + limits;
    case KeyType::kNumber:
      return "number" + limits;
    case KeyType::kBoolean:
      return "true | false";
    case KeyType::kWord:
      return Joined(words, " | ");
    case KeyType::kWords:
      return "list of " + Joined(words, ", ");
    case KeyType::kNumberPair:
      return "pair of numbers" + limits;
    case KeyType::kModelConfig:
      return "map";
  }
  return "";
}

std::string KeysMarkdown() {
  const Recipe standard;
  std::string out = "| key | type | default | meaning |\n|---|---|---|---|\n";
  for (const Key& key : Schema()) {
    std::string value =
        key.name == "name" ? "the file's name" : "`" + FormatValue(key, key.read(standard)) + "`";
    for (const Method* method : Methods()) {
      const json other = DefaultOf(key, *method);
      if (other != key.read(standard)) {
        value += "; " + std::string(method->name) + ": `" + FormatValue(key, other) + "`";
      }
    }
    std::string type = key.TypeText();
    for (std::size_t at = 0; (at = type.find('|', at)) != std::string::npos; at += 2) type.insert(at, "\\");
    out += "| `" + key.name + "` | " + type + " | " + value + " | " + key.meaning + " |\n";
  }
  return out;
}

}  // namespace plural::trainer
