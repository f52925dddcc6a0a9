#include "trainer/recipe/recipe.h"

#include <cstdlib>
#include <set>
#include <stdexcept>
#include <utility>

#include "trainer/base/error.h"
#include "trainer/base/printable.h"
#include "trainer/recipe/rules.h"
#include "trainer/recipe/scalar.h"
#include "trainer/recipe/schema.h"
#include "trainer/recipe/suggest.h"
#include "trainer/recipe/yaml_document.h"

namespace plural::trainer {
namespace {

using nlohmann::json;

constexpr char kCommandLine[] = "command line";
// A base may be named by several files, so their number is bounded by itself.
constexpr int kMaxFiles = 64;

struct Setting {
  json value;  // null: back to the default
  std::string origin;
};

// Collects settings from files and the command line, later ones over earlier ones, and every problem.
class Reader {
 public:
  void AddFile(const std::filesystem::path& file) {
    std::error_code ignored;
    const std::filesystem::path identity = std::filesystem::weakly_canonical(file, ignored);
    if (!open_files_.insert(identity).second) {
      throw ExitError(ExitCode::kBadRecipe,
                      file.string() + ": inherits from itself through 'base'; break the circle");
    }
    if (++files_ > kMaxFiles) {
      throw ExitError(ExitCode::kBadRecipe,
                      file.string() + ": more than " + std::to_string(kMaxFiles) + " files through 'base'");
    }
    const std::string text = ReadYamlFile(file);
    const YamlNode root = ParseYaml(text, file.string());
    if (!root.IsMap() && !root.IsNull()) {
      Problem(At(file.string(), root), "a recipe is a map of keys, found " + root.Describe());
    }
    for (const auto& [key, node] : root.entries) {
      if (key == "base") AddBases(file, node);
    }
    for (const auto& [key, node] : root.entries) {
      if (key != "base") AddEntry(file.string(), "", key, node);
    }
    open_files_.erase(identity);
  }

  void AddOverride(const std::string& text) {
    const std::string shown = "command line '" + Printable(Shortened(text)) + "'";
    if (FirstBadUtf8(text) != std::string::npos) return Problem(shown, "is not UTF-8");
    const auto equals = text.find('=');
    if (equals == std::string::npos || equals == 0) return Problem(shown, "must have the form a.b=c");
    const std::string name = text.substr(0, equals);
    const std::string value = text.substr(equals + 1);
    const std::string origin = kCommandLine;
    if (name == "base") return Problem(shown, "base cannot be overridden; give another recipe file");
    constexpr std::string_view kConfigPrefix = "model.config.";
    if (name.starts_with(kConfigPrefix) && name.size() > kConfigPrefix.size()) {
      return AddConfigEntry(shown, name.substr(kConfigPrefix.size()), value);
    }
    const Key* key = FindKey(name);
    if (key == nullptr) key = FindSwitch(name);  // profile=true
    if (key == nullptr) {
      if (IsSection(name)) return Problem(shown, SectionMessage(name));
      return Problem(shown, "unknown key '" + Printable(name) + "'; " + Suggest(name));
    }
    if (value.size() > kMaxYamlBytes) return Problem(shown, "the value is larger than 1 MiB");
    try {
      Set(*key, OverrideNode(*key, value), shown, origin);
    } catch (const ExitError& error) {  // the text of a list or map is not YAML
      Problem(shown, error.what());
    }
  }

  // The recipe, or one error that lists every problem.
  Recipe Resolve(const std::filesystem::path& file) {
    Recipe recipe;
    Apply("method", recipe);
    for (const KeyDefault& other : recipe.method->defaults) {
      const Key& key = *FindKey(other.key);
      key.assign(recipe, json::parse(other.json));
      recipe.origins[key.name] = "default of " + std::string(recipe.method->name);
    }
    recipe.name = file.stem().string();
    recipe.origins["name"] = "file name";
    for (const Key& key : Schema()) Apply(key.name, recipe);
    ExpandHome("resume", recipe.resume, recipe);
    ExpandHome("run.dir", recipe.run.dir, recipe);
    ExpandHome("model.path", recipe.model.path, recipe);
    ExpandHome("adapter.init_from", recipe.adapter.init_from, recipe);
    ExpandHome("data.train", recipe.data.train, recipe);
    ExpandHome("data.validation", recipe.data.validation, recipe);

    const auto readable = [&](const std::string& key) { return !unreadable_.contains(key); };
    for (const Violation& violation : CheckRules(recipe, readable)) {
      const std::string& origin = recipe.origins.at(violation.key);
      const bool has_place = !origin.starts_with("default") && origin != "file name";
      Problem(has_place ? origin : file.string(), violation.key + " " + violation.what);
    }
    ThrowProblems(file);
    return recipe;
  }

 private:
  static std::string At(const std::string& file, const YamlNode& node) {
    return file + ":" + std::to_string(node.line);
  }

  // "~/x" is the home folder's x, as in a shell, which does not see the paths of a recipe.
  void ExpandHome(const std::string& name, std::string& path, const Recipe& recipe) {
    if (!path.starts_with('~')) return;
    const char* home = std::getenv("HOME");
    const bool mine = path.size() == 1 || path[1] == '/';
    if (mine && home != nullptr && *home != '\0') {
      path.replace(0, 1, home);
    } else {
      Problem(recipe.origins.at(name), name + " is '" + Printable(path) + "'; " +
                                           (mine ? "HOME is not set" : "only '~/' is known") +
                                           ", write the folder out (a folder named '~' is './~')");
    }
  }

  void Problem(const std::string& where, const std::string& what) {
    problems_.push_back(where + ": " + what);
  }

  static std::string SectionMessage(const std::string& name) {
    return "'" + name + "' is a section, not a value; " + KnownKeys(name);
  }

  void AddBases(const std::filesystem::path& file, const YamlNode& node) {
    std::vector<YamlNode> names = node.items;
    if (node.IsScalar()) names = {node};
    if (names.empty())
      Problem(At(file.string(), node),
              "base must be a file name or a list of them, found " + node.Describe());
    for (const YamlNode& name : names) {
      if (!name.IsScalar() || name.text.empty()) {
        Problem(At(file.string(), name), "base must name a file, found " + name.Describe());
        continue;
      }
      const std::filesystem::path base = (file.parent_path() / name.text).lexically_normal();
      std::error_code ignored;
      if (!std::filesystem::exists(base, ignored)) {
        throw ExitError(ExitCode::kMissingInput, At(file.string(), name) + ": base '" + name.text +
                                                     "' is not at '" + base.string() +
                                                     "'; bases are relative to the file that names them");
      }
      AddFile(base);
    }
  }

  void AddEntry(const std::string& file, const std::string& prefix, const std::string& last,
                const YamlNode& node) {
    const std::string name = prefix + last;
    const std::string where = At(file, node);
    if (last.find('.') != std::string::npos) {
      const bool known = FindKey(name) != nullptr;
      return Problem(where, "unknown key '" + Printable(name) + "'; " +
                                (known ? "in a file, write it as a section: '" +
                                             last.substr(0, last.find('.')) + ": {...}'"
                                       : Suggest(name)));
    }
    if (const Key* key = FindKey(name)) return Set(*key, node, where, where);
    if (!IsSection(name)) return Problem(where, "unknown key '" + Printable(name) + "'; " + Suggest(name));
    if (node.IsMap()) {
      for (const auto& [inner, value] : node.entries) AddEntry(file, name + ".", inner, value);
    } else if (node.IsNull()) {
      // Resets the whole section.
      for (const Key& key : Schema()) {
        if (key.name.starts_with(name + ".")) Set(key, node, where, where);
      }
    } else if (const Key* key = FindSwitch(name)) {
      Set(*key, node, where, where);
    } else {
      Problem(where, SectionMessage(name));
    }
  }

  // Lists and maps are written as YAML; everything else is taken as it stands, so that no character of a
  // path or name needs quoting.
  static YamlNode OverrideNode(const Key& key, const std::string& value) {
    if (key.type == KeyType::kWords || key.type == KeyType::kNumberPair ||
        key.type == KeyType::kModelConfig) {
      return ParseYaml(value, key.name);
    }
    YamlNode node;
    node.kind = value == "null" ? YamlNode::Kind::kNull : YamlNode::Kind::kScalar;
    node.text = value;
    return node;
  }

  // model.config.hidden_size=64: one entry of the free map.
  void AddConfigEntry(const std::string& shown, const std::string& name, const std::string& value) {
    if (name.find('.') != std::string::npos)
      return Problem(shown, "give an inner map of model.config whole, as {...}");
    YamlNode map;
    map.kind = YamlNode::Kind::kMap;
    try {
      map.entries.push_back({name, ParseYaml(value, "model.config." + name)});
      Set(*FindKey("model.config"), map, shown, kCommandLine);
    } catch (const ExitError& error) {
      Problem(shown, error.what());
    }
  }

  void Set(const Key& key, const YamlNode& node, const std::string& where, const std::string& origin) {
    Setting& setting = settings_[key.name];
    if (node.IsNull()) {
      setting = {};
      unreadable_.erase(key.name);
      return;
    }
    try {
      json value = ReadValue(key, node);
      if (key.type == KeyType::kModelConfig && setting.value.is_object()) {
        setting.value.merge_patch(value);  // maps merge; null removes
      } else {
        setting.value = std::move(value);
      }
      setting.origin = origin;
      unreadable_.erase(key.name);
    } catch (const std::invalid_argument& error) {
      unreadable_.insert(key.name);
      Problem(where, key.name + " " + error.what());
    }
  }

  void Apply(const std::string& name, Recipe& recipe) const {
    const auto it = settings_.find(name);
    if (it == settings_.end() || it->second.value.is_null()) {
      recipe.origins.try_emplace(name, "default");
      return;
    }
    FindKey(name)->assign(recipe, it->second.value);
    recipe.origins[name] = it->second.origin;
  }

  void ThrowProblems(const std::filesystem::path& file) const {
    if (problems_.empty()) return;
    if (problems_.size() == 1) throw ExitError(ExitCode::kBadRecipe, problems_[0]);
    constexpr std::size_t kMostShown = 50;
    std::string text = file.string() + " has " + std::to_string(problems_.size()) + " problems";
    for (std::size_t i = 0; i < std::min(problems_.size(), kMostShown); ++i) text += "\n  " + problems_[i];
    if (problems_.size() > kMostShown)
      text += "\n  ... and " + std::to_string(problems_.size() - kMostShown) + " more";
    throw ExitError(ExitCode::kBadRecipe, text);
  }

  std::map<std::string, Setting> settings_;
  std::set<std::string> unreadable_;
  std::set<std::filesystem::path> open_files_;
  std::vector<std::string> problems_;
  int files_ = 0;
};

}  // namespace

Recipe LoadRecipe(const std::filesystem::path& file, const std::vector<std::string>& overrides) {
  Reader reader;
  reader.AddFile(file);
  for (const std::string& text : overrides) reader.AddOverride(text);
  return reader.Resolve(file);
}

MethodSettings Recipe::SettingsOfMethod() const {
  const data::LabelSettings label{
      .responses = static_cast<int>(group.responses),
      .possibilities = static_cast<int>(group.possibilities),
      .max_negatives = static_cast<int>(group.max_negatives),
      .assignment = group.assignment,
      .selection = group.selection,
      .unlikelihood_alpha = loss.unlikelihood_alpha,
      .mask = loss.unlikelihood_mask,
      .normalization = loss.normalize,
      .latent_branches = cvf.estimator == LatentEstimator::kExact ? static_cast<int>(cvf.latents) : 0,
      .seed = seed};
  return {.label = label,
          .unlikelihood_clamp = loss.unlikelihood_clamp,
          .latent = {.latents = cvf.latents,
                     .estimator = cvf.estimator,
                     .temperature = cvf.temperature,
                     .bow_weight = cvf.bow_weight},
          .own = own};
}

json Recipe::Canonical() const {
  json out = json::object();
  for (const Key& key : Schema()) {
    if (key.BelongsTo(*method)) out[key.name] = key.read(*this);
  }
  // Runs that were begun under the older word go on.
  if (!method->other_name.empty()) out["method"] = method->other_name;
  return out;
}

std::string Recipe::ResolvedYaml() const {
  std::string out;
  std::vector<std::string> open;  // the sections that the previous key stands in
  for (const Key& key : Schema()) {
    if (!key.BelongsTo(*method)) continue;
    std::vector<std::string> sections;
    std::size_t start = 0;
    for (auto dot = key.name.find('.'); dot != std::string::npos; dot = key.name.find('.', start)) {
      sections.push_back(key.name.substr(start, dot - start));
      start = dot + 1;
    }
    std::size_t shared = 0;
    while (shared < std::min(open.size(), sections.size()) && open[shared] == sections[shared]) ++shared;
    for (std::size_t i = shared; i < sections.size(); ++i)
      out += std::string(2 * i, ' ') + sections[i] + ":\n";
    open = sections;
    std::string line =
        std::string(2 * sections.size(), ' ') + key.LastName() + ": " + FormatValue(key, key.read(*this));
    constexpr std::size_t kCommentColumn = 48;
    line.resize(std::max(line.size() + 2, kCommentColumn), ' ');
    const auto origin = origins.find(key.name);
    out += line + "# " + (origin == origins.end() ? "default" : Printable(origin->second)) + "\n";
  }
  return out;
}

}  // namespace plural::trainer
