// The schema: every key a recipe may have.
//
// Owns: the one table of keys with type, range, meaning and place in Recipe, from which reading, checking,
// printing and the documentation are derived, with the keys that methods declare (method/method.h). Does not
// own: contradictions between keys (rules.h). Thread rule: immutable.
#pragma once

#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "trainer/recipe/recipe.h"
#include "trainer/recipe/yaml_document.h"

namespace plural::trainer {

enum class KeyType { kText, kInteger, kNumber, kBoolean, kWord, kWords, kNumberPair, kModelConfig };

struct Range {
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();
  bool low_open = false;   // low itself is not allowed
  bool high_open = false;  // high itself is not allowed

  bool Contains(double value) const {
    return (low_open ? value > low : value >= low) && (high_open ? value < high : value <= high);
  }
  std::string Text() const;  // ">= 1", "> 0", "in [0, 1)", "" without limits
};

struct Key {
  std::string name;  // "adapter.rank"
  KeyType type = KeyType::kText;
  Range range;                     // of numbers
  std::vector<std::string> words;  // that kWord and kWords allow
  std::string meaning;             // one line for docs/recipes.md
  const Method* method = nullptr;  // that alone has the key; null: all have it
  std::function<void(Recipe&, const nlohmann::json&)> assign;
  std::function<nlohmann::json(const Recipe&)> read;

  std::string Section() const { return name.substr(0, name.rfind('.') + 1); }  // "loss.unlikelihood." or ""
  std::string LastName() const { return name.substr(name.rfind('.') + 1); }
  std::string TypeText() const;  // "integer >= 1", "constant | linear | cosine"
  // Recipes of other methods do not print it, so that they stay the same when a method is added.
  bool BelongsTo(const Method& other) const { return method == nullptr || method == &other; }
};

// All keys, in the order in which they are printed. Keys of one section stand together.
const std::vector<Key>& Schema();
const Key* FindKey(std::string_view name);
// The key that `section: true` stands for, "section.enabled"; null for a section without one.
const Key* FindSwitch(std::string_view section);
// Whether keys "name.x" exist.
bool IsSection(std::string_view name);

// Reads `node` as a value of `key`. Throws std::invalid_argument with "must be ..., found ...".
nlohmann::json ReadValue(const Key& key, const YamlNode& node);
// `value` of `key` as YAML on one line.
std::string FormatValue(const Key& key, const nlohmann::json& value);

// The value of `key` with `method` when nobody sets it.
nlohmann::json DefaultOf(const Key& key, const Method& method);

// The table of docs/recipes.md: one line a key with type, default and meaning.
std::string KeysMarkdown();

}  // namespace plural::trainer
