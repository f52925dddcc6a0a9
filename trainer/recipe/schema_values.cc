// Values of keys: from YAML nodes to JSON and back to YAML text.
#include <algorithm>
#include <set>
#include <stdexcept>

#include "trainer/recipe/scalar.h"
#include "trainer/recipe/schema.h"

namespace plural::trainer {
namespace {

using nlohmann::json;

[[noreturn]] void Refuse(const std::string& allowed, const YamlNode& found, const std::string& hint = "") {
  throw std::invalid_argument("must be " + allowed + ", found " + found.Describe() + hint);
}

// Quoted numbers are text; saying so is kinder than "found '5e-5'".
std::string QuotesHint(const YamlNode& node) {
  return node.IsScalar() && node.quoted ? "; write it without quotes" : "";
}

json IntegerValue(const YamlNode& node, const Range& range) {
  const std::string allowed = "an integer" + (range.Text().empty() ? "" : " " + range.Text());
  if (!node.IsScalar() || node.quoted) Refuse(allowed, node, QuotesHint(node));
  const auto value = ParseInteger(node.text);
  if (!value) Refuse(allowed, node, "; write decimal digits only");
  if (!range.Contains(static_cast<double>(*value))) Refuse(allowed, node);
  return *value;
}

json NumberValue(const YamlNode& node, const Range& range) {
  const std::string allowed = "a number" + (range.Text().empty() ? "" : " " + range.Text());
  if (!node.IsScalar() || node.quoted) Refuse(allowed, node, QuotesHint(node));
  const auto value = ParseNumber(node.text);
  if (!value) Refuse(allowed, node, "; write a finite decimal number such as 0.5 or 5e-5");
  if (!range.Contains(*value)) Refuse(allowed, node);
  return *value;
}

json WordValue(const Key& key, const YamlNode& node) {
  std::string allowed;
  for (const std::string& word : key.words) allowed += (allowed.empty() ? "" : ", ") + word;
  allowed = (key.words.size() > 1 ? "one of " : "") + allowed;
  if (!node.IsScalar()) Refuse(allowed, node);
  if (std::find(key.words.begin(), key.words.end(), node.text) == key.words.end()) Refuse(allowed, node);
  return node.text;
}

json WordsValue(const Key& key, const YamlNode& node) {
  const std::string allowed = "a list such as [" + key.words[0] + ", " + key.words[1] + "]";
  if (!node.IsList()) Refuse(allowed, node);
  if (node.items.empty()) throw std::invalid_argument("must be " + allowed + ", found an empty list");
  json out = json::array();
  for (const YamlNode& item : node.items) {
    const json word = WordValue(key, item);
    if (std::find(out.begin(), out.end(), word) != out.end()) {
      throw std::invalid_argument("names " + item.text + " twice; keep one");
    }
    out.push_back(word);
  }
  return out;
}

// Values of config.json. Plain words are text, as YAML has it, but nothing that another reader would take
// for a number or truth value.
json ConfigValue(const YamlNode& node) {
  switch (node.kind) {
    case YamlNode::Kind::kNull:
      return nullptr;
    case YamlNode::Kind::kList: {
      json out = json::array();
      for (const YamlNode& item : node.items) out.push_back(ConfigValue(item));
      return out;
    }
    case YamlNode::Kind::kMap: {
      json out = json::object();
      for (const auto& [key, value] : node.entries) out[key] = ConfigValue(value);
      return out;
    }
    case YamlNode::Kind::kScalar:
      break;
  }
  if (node.quoted) return node.text;
  // Whole numbers >= 0 are unsigned in JSON texts too.
  if (const auto value = ParseInteger(node.text))
    return *value >= 0 ? json(static_cast<std::uint64_t>(*value)) : json(*value);
  if (const auto value = ParseNumber(node.text)) return *value;
  if (const auto value = ParseBoolean(node.text)) return *value;
  static const std::set<std::string> kAmbiguous = {"yes", "no",   "on",    "off",  "y",
                                                   "n",   "True", "False", "TRUE", "FALSE"};
  const std::string& text = node.text;
  const bool like_a_number = text.find_first_not_of("0123456789+-._xXoOabcdefABCDEF") == std::string::npos &&
                             text.find_first_of("0123456789") != std::string::npos &&
                             std::count(text.begin(), text.end(), '.') <= 1;
  if (kAmbiguous.contains(text) || like_a_number || text == ".nan" || text == ".inf" || text == "-.inf") {
    throw std::invalid_argument("has " + node.Describe() +
                                ", which is neither a decimal number nor true or false; put text in quotes");
  }
  return text;
}

std::string FormatScalar(KeyType type, const json& value) {
  if (value.is_string()) return QuoteYaml(value.get<std::string>());
  if (type == KeyType::kNumber || type == KeyType::kNumberPair) return FormatNumber(value.get<double>());
  return value.dump();
}

}  // namespace

json ReadValue(const Key& key, const YamlNode& node) {
  switch (key.type) {
    case KeyType::kText:
      if (!node.IsScalar()) Refuse("text", node);
      return node.text;
    case KeyType::kInteger:
      return IntegerValue(node, key.range);
    case KeyType::kNumber:
      return NumberValue(node, key.range);
    case KeyType::kBoolean: {
      const auto value = node.IsScalar() && !node.quoted ? ParseBoolean(node.text) : std::nullopt;
      if (!value) Refuse("true or false", node);
      return *value;
    }
    case KeyType::kWord:
      return WordValue(key, node);
    case KeyType::kWords:
      return WordsValue(key, node);
    case KeyType::kNumberPair:
      if (!node.IsList() || node.items.size() != 2)
        Refuse("a list of two numbers such as [0.9, 0.999]", node);
      return {NumberValue(node.items[0], key.range), NumberValue(node.items[1], key.range)};
    case KeyType::kModelConfig:
      if (!node.IsMap()) Refuse("a map of the keys of a config.json", node);
      return ConfigValue(node);
  }
  throw std::logic_error("a key type without a reader");
}

std::string FormatValue(const Key& key, const json& value) {
  if (value.is_null()) return "null";
  if (key.type == KeyType::kModelConfig) return value.dump();  // JSON is YAML on one line
  if (!value.is_array()) return FormatScalar(key.type, value);
  std::string out;
  for (const json& item : value) out += (out.empty() ? "" : ", ") + FormatScalar(key.type, item);
  return "[" + out + "]";
}

}  // namespace plural::trainer
