// Strict YAML: the subset a recipe may use, as a tree that knows its lines.
//
// Owns: syntax, and every limit that keeps a hostile file from costing more than its size: no anchors,
// aliases, tags, merge keys, duplicate keys or second documents; bounded size, depth and node count.
// Does not own: which keys exist or what type they have (schema.h). Thread rule: values.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace plural::trainer {

inline constexpr std::size_t kMaxYamlBytes = std::size_t{1} << 20;
inline constexpr int kMaxYamlDepth = 32;
inline constexpr int kMaxYamlNodes = 10'000;

struct YamlEntry;

struct YamlNode {
  enum class Kind { kNull, kScalar, kList, kMap };

  Kind kind = Kind::kNull;
  // Where it stands, counted from 1; a value of a map stands where its key does.
  int line = 0, column = 0;
  std::string text;                // of a scalar
  bool quoted = false;             // a scalar in quotes, or a block scalar: text, never a number or a word
  std::vector<YamlNode> items;     // of a list
  std::vector<YamlEntry> entries;  // of a map, in file order, keys unique

  bool IsScalar() const { return kind == Kind::kScalar; }
  bool IsMap() const { return kind == Kind::kMap; }
  bool IsList() const { return kind == Kind::kList; }
  bool IsNull() const { return kind == Kind::kNull; }
  // What stands here, for error messages: "nothing", "a list", "a map", "text '...'", "'...'".
  std::string Describe() const;
};

struct YamlEntry {
  std::string key;
  YamlNode value;
};

// An empty text is a null node. Errors: ExitError(kBadRecipe) "NAME:LINE:COLUMN: ...".
YamlNode ParseYaml(std::string_view text, const std::string& name);

// The file's bytes, at most kMaxYamlBytes of them. Errors: ExitError(kMissingInput) when it is missing,
// unreadable or no regular file; ExitError(kBadRecipe) when it is too large.
std::string ReadYamlFile(const std::filesystem::path& path);

}  // namespace plural::trainer
