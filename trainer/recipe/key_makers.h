// Makers of the schema's keys: one function per kind of key.
//
// Owns: how a key of each kind reads and writes its place in Recipe. Does not own: which keys there are
// (schema.cc), how values look in YAML (schema_values.cc). Thread rule: free functions.
#pragma once

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "trainer/recipe/schema.h"

namespace plural::trainer::key_makers {

template <class Value>
using Words = std::vector<std::pair<std::string, Value>>;

// `field` is a key's place in Recipe, as a function that serves reading and writing.
template <class Field>
Key MakeKey(const char* name, KeyType type, Field field, const char* meaning) {
  using Value = std::remove_cvref_t<decltype(field(std::declval<Recipe&>()))>;
  Key key;
  key.name = name;
  key.type = type;
  key.meaning = meaning;
  key.assign = [field](Recipe& recipe, const nlohmann::json& value) { field(recipe) = value.get<Value>(); };
  key.read = [field](const Recipe& recipe) { return nlohmann::json(field(recipe)); };
  return key;
}

// An empty text means "not given" and is printed as null.
template <class Field>
Key Text(const char* name, Field field, const char* meaning) {
  Key key = MakeKey(name, KeyType::kText, field, meaning);
  key.read = [field](const Recipe& recipe) {
    const std::string& text = field(recipe);
    return text.empty() ? nlohmann::json() : nlohmann::json(text);
  };
  return key;
}

template <class Field>
Key Integer(const char* name, Range range, Field field, const char* meaning) {
  Key key = MakeKey(name, KeyType::kInteger, field, meaning);
  key.range = range;
  return key;
}

template <class Field>
Key Number(const char* name, Range range, Field field, const char* meaning) {
  Key key = MakeKey(name, KeyType::kNumber, field, meaning);
  key.range = range;
  return key;
}

template <class Field>
Key Boolean(const char* name, Field field, const char* meaning) {
  return MakeKey(name, KeyType::kBoolean, field, meaning);
}

// The first of several words with one meaning is the one that is printed.
template <class Value, class Field>
Key Word(const char* name, const Words<Value>& words, Field field, const char* meaning) {
  Key key;
  key.name = name;
  key.type = KeyType::kWord;
  key.meaning = meaning;
  for (const auto& [word, value] : words) key.words.push_back(word);
  key.assign = [field, words](Recipe& recipe, const nlohmann::json& given) {
    for (const auto& [word, value] : words) {
      if (given == word) field(recipe) = value;
    }
  };
  key.read = [field, words](const Recipe& recipe) {
    const auto it = std::find_if(words.begin(), words.end(),
                                 [&](const auto& entry) { return entry.second == field(recipe); });
    return nlohmann::json(it->first);
  };
  return key;
}

inline Words<std::string> Same(const std::vector<std::string>& words) {
  Words<std::string> out;
  for (const std::string& word : words) out.emplace_back(word, word);
  return out;
}

inline Range AtLeast(double low) { return {.low = low}; }
inline Range Above(double low) { return {.low = low, .low_open = true}; }
inline Range Between(double low, double high) { return {.low = low, .high = high}; }
inline Range UnitInterval() { return {.low = 0.0, .high = 1.0, .high_open = true}; }

}  // namespace plural::trainer::key_makers
