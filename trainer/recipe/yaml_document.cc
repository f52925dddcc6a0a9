#include "trainer/recipe/yaml_document.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/mark.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <fstream>
#include <set>
#include <sstream>
#include <utility>

#include "trainer/base/error.h"
#include "trainer/base/printable.h"
#include "trainer/recipe/scalar.h"

namespace plural::trainer {
namespace {

[[noreturn]] void Refuse(const std::string& name, int line, int column, const std::string& what) {
  throw ExitError(ExitCode::kBadRecipe,
                  name + ":" + std::to_string(line) + ":" + std::to_string(column) + ": " + what);
}

// Builds the tree from parser events and stops at the first construct that a recipe may not use, before
// anything is expanded.
class TreeBuilder : public YAML::EventHandler {
 public:
  explicit TreeBuilder(const std::string& name) : name_(name) {}

  YamlNode Take() { return std::move(root_); }

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (++documents_ > 1) Fail(mark, "a second document starts here; a recipe is one document");
  }
  void OnDocumentEnd() override {}

  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    CheckAnchor(mark, anchor);
    Add(mark, Make(mark, YamlNode::Kind::kNull));
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    Fail(mark, "aliases (*name) are not allowed; write the value out, or use 'base'");
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    CheckAnchor(mark, anchor);
    // The parser marks plain scalars "?" and quoted ones "!".
    if (tag != "?" && tag != "!") FailTag(mark, tag);
    YamlNode node = Make(mark, YamlNode::Kind::kScalar);
    node.text = value;
    node.quoted = tag == "!";
    Add(mark, std::move(node));
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    Open(mark, tag, anchor, YamlNode::Kind::kList);
  }
  void OnSequenceEnd() override { Close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    Open(mark, tag, anchor, YamlNode::Kind::kMap);
  }
  void OnMapEnd() override { Close(); }

 private:
  struct Level {
    YamlNode node;
    std::set<std::string> keys;  // seen in this map
    bool has_key = false;        // a key waits for its value
    std::string key;
    int key_line = 0, key_column = 0;
  };

  [[noreturn]] void Fail(const YAML::Mark& mark, const std::string& what) const {
    Refuse(name_, mark.line + 1, mark.column + 1, what);
  }
  [[noreturn]] void FailTag(const YAML::Mark& mark, const std::string& tag) const {
    Fail(mark, "tags are not allowed, found '" + tag + "'; write the plain value");
  }
  void CheckAnchor(const YAML::Mark& mark, YAML::anchor_t anchor) const {
    if (anchor != 0) Fail(mark, "anchors (&name) are not allowed; write the value out, or use 'base'");
  }

  YamlNode Make(const YAML::Mark& mark, YamlNode::Kind kind) {
    if (++nodes_ > kMaxYamlNodes) {
      Fail(mark, "more than " + std::to_string(kMaxYamlNodes) + " values; a recipe has at most so many");
    }
    YamlNode node;
    node.kind = kind;
    node.line = mark.line + 1;
    node.column = mark.column + 1;
    return node;
  }

  void Open(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, YamlNode::Kind kind) {
    CheckAnchor(mark, anchor);
    if (!tag.empty() && tag != "?") FailTag(mark, tag);
    if (!levels_.empty() && levels_.back().node.IsMap() && !levels_.back().has_key) {
      Fail(mark, "a key must be a word, found a list or map; is a bracket left open?");
    }
    if (levels_.size() >= static_cast<std::size_t>(kMaxYamlDepth)) {
      Fail(mark, "nested deeper than " + std::to_string(kMaxYamlDepth) + " levels");
    }
    levels_.emplace_back().node = Make(mark, kind);
  }

  void Close() {
    YamlNode node = std::move(levels_.back().node);
    levels_.pop_back();
    Attach(std::move(node));
  }

  void Add(const YAML::Mark& mark, YamlNode node) {
    if (!levels_.empty() && levels_.back().node.IsMap() && !levels_.back().has_key) {
      TakeKey(mark, node);
    } else {
      Attach(std::move(node));
    }
  }

  void TakeKey(const YAML::Mark& mark, const YamlNode& node) {
    Level& level = levels_.back();
    if (!node.IsScalar() || node.text.empty()) Fail(mark, "a key must be a word, found " + node.Describe());
    if (node.text == "<<") Fail(mark, "merge keys (<<) are not allowed; use 'base' to inherit");
    if (!level.keys.insert(node.text).second) {
      std::string first;
      for (const auto& [key, value] : level.node.entries) {
        if (key == node.text) first = " (first on line " + std::to_string(value.line) + ")";
      }
      Fail(mark, "the key '" + node.text + "' stands here a second time" + first + "; keep one");
    }
    level.has_key = true;
    level.key = node.text;
    level.key_line = node.line;
    level.key_column = node.column;
  }

  void Attach(YamlNode node) {
    if (levels_.empty()) {
      root_ = std::move(node);
      return;
    }
    Level& level = levels_.back();
    if (level.node.IsList()) {
      level.node.items.push_back(std::move(node));
    } else {
      node.line = level.key_line;
      node.column = level.key_column;
      level.node.entries.push_back({std::move(level.key), std::move(node)});
      level.has_key = false;
    }
  }

  const std::string& name_;
  std::vector<Level> levels_;
  YamlNode root_;
  int documents_ = 0;
  int nodes_ = 0;
};

// Whether the text of a line, counted from 0, stands behind a tab.
bool HasTabIndent(std::string_view text, int line) {
  std::istringstream lines{std::string(text)};
  std::string found;
  for (int i = 0; i <= line; ++i) std::getline(lines, found);
  return found.substr(0, found.find_first_not_of(" \t")).find('\t') != std::string::npos;
}

}  // namespace

std::string YamlNode::Describe() const {
  switch (kind) {
    case Kind::kNull:
      return "nothing";
    case Kind::kList:
      return "a list";
    case Kind::kMap:
      return "a map";
    case Kind::kScalar:
      break;
  }
  return (quoted ? "text '" : "'") + Printable(Shortened(text)) + "'";
}

YamlNode ParseYaml(std::string_view text, const std::string& name) {
  // Checked before the parser sees it: yaml-cpp replaces bad bytes silently and takes a zero byte or
  // UTF-16 marks as it pleases.
  if (const std::size_t bad = FirstBadUtf8(text); bad != std::string_view::npos) {
    Refuse(name, 1 + static_cast<int>(std::count(text.begin(), text.begin() + bad, '\n')), 1,
           "byte " + std::to_string(bad) + " of the text is not UTF-8 or is zero");
  }
  std::istringstream stream{std::string(text)};
  TreeBuilder builder(name);
  try {
    YAML::Parser parser(stream);
    while (parser.HandleNextDocument(builder)) {
    }
  } catch (const YAML::Exception& error) {
    const std::string cause = HasTabIndent(text, error.mark.line)
                                  ? "a tab stands before the text; YAML takes spaces only, replace it"
                                  : error.msg;
    Refuse(name, error.mark.line + 1, error.mark.column + 1, "not valid YAML: " + cause);
  }
  return builder.Take();
}

std::string ReadYamlFile(const std::filesystem::path& path) {
  std::error_code ignored;
  const auto status = std::filesystem::status(path, ignored);
  if (!std::filesystem::exists(status)) {
    throw ExitError(ExitCode::kMissingInput, "no recipe at '" + path.string() + "'; check the path");
  }
  if (!std::filesystem::is_regular_file(status)) {
    throw ExitError(ExitCode::kMissingInput, "'" + path.string() + "' is not a file; give a .yaml file");
  }
  std::ifstream file(path, std::ios::binary);
  std::string bytes(kMaxYamlBytes + 1, '\0');
  file.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  if (!file.is_open() || file.bad()) {
    throw ExitError(ExitCode::kMissingInput, "cannot read '" + path.string() + "'; check its permissions");
  }
  bytes.resize(static_cast<std::size_t>(file.gcount()));
  if (bytes.size() > kMaxYamlBytes) {
    throw ExitError(ExitCode::kBadRecipe, path.string() + ": larger than 1 MiB; a recipe is a short text");
  }
  return bytes;
}

}  // namespace plural::trainer
