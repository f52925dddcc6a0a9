#include "trainer/run/run_folder.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <map>
#include <string_view>
#include <utility>

#include "data/sha256.h"
#include "trainer/base/error.h"
#include "trainer/base/file_io.h"
#include "trainer/files/weight_files.h"
#include "trainer/files/weight_manifest.h"

namespace plural::trainer {
namespace fs = std::filesystem;
namespace {

constexpr std::array<std::string_view, 4> kFileKeys = {"data.train", "data.validation", "model.path",
                                                       "adapter.init_from"};

// Keys that came after checkpoints that runs may go on from: left out where they are what all runs were
// before.
constexpr std::array<std::pair<std::string_view, std::string_view>, 1> kLaterKeys = {
    {{"train.reduction", "fast"}}};

std::map<std::string, nlohmann::json> HashedKeys(const Recipe& recipe) {
  std::map<std::string, nlohmann::json> keys = DecidingKeys(recipe);
  for (const auto& [key, before] : kLaterKeys) {
    const auto found = keys.find(std::string(key));
    if (found != keys.end() && found->second == before) keys.erase(found);
  }
  return keys;
}

bool NamesAFile(const std::string& key) { return std::ranges::find(kFileKeys, key) != kFileKeys.end(); }

// Absolute, links followed; names of the Hub stay apart from each other.
std::string OneSpelling(const nlohmann::json& path) {
  if (!path.is_string() || path.get_ref<const std::string&>().empty()) return "";
  std::error_code error;
  const fs::path found = fs::weakly_canonical(fs::absolute(path.get<std::string>(), error), error);
  return error ? "" : found.string();
}

bool SameValue(const std::string& key, const nlohmann::json& left, const nlohmann::json& right) {
  if (left.dump() == right.dump()) return true;
  if (!NamesAFile(key)) return false;
  const std::string path = OneSpelling(left);
  return !path.empty() && path == OneSpelling(right);
}

}  // namespace

fs::path RunPaths::LogOf(int rank) const {
  char name[32];
  std::snprintf(name, sizeof(name), "rank-%05d.log", rank);
  return Logs() / name;
}

RunFolder::RunFolder(const Recipe& recipe) : paths_(recipe) {
  try {
    MakeFolders(paths_.Logs());
  } catch (const ExitError& error) {
    throw ExitError(error.Code(), paths_.root.string() + ": the run folder cannot be made: " + error.what() +
                                      "; give a folder that can be written (run.dir)");
  }
  RequireFiles();
  lock_.emplace(paths_.Lock());
  RemoveLeftovers();
  if (fs::exists(paths_.RecipeFile())) RequireSameRecipe(paths_.RecipeFile(), recipe);
  const std::string text = recipe.ResolvedYaml();
  if (!fs::exists(paths_.RecipeFile()) || ReadFile(paths_.RecipeFile()) != text) {
    WriteFileDurably(paths_.RecipeFile(), text);
  }
}

// What would be written through a link is somebody else's file, and a pipe is waited for without end. Folders
// may be links: to another disk, say.
void RunFolder::RequireFiles() const {
  const auto require = [](const fs::path& path) {
    std::error_code error;
    const fs::file_status status = fs::symlink_status(path, error);
    if (!fs::exists(status) || fs::is_regular_file(status)) return;
    if (fs::is_directory(path, error)) return;
    throw ExitError(ExitCode::kCannotCreate,
                    path.string() + ": is no regular file, and the run would write to it; remove it");
  };
  for (const fs::path& path : {paths_.Lock(), paths_.RecipeFile(), paths_.Metrics()}) require(path);
  std::error_code ignored;
  for (fs::directory_iterator entry(paths_.Logs(), ignored), last; !ignored && entry != last;
       entry.increment(ignored)) {
    require(entry->path());
  }
}

// checkpoints/ sees to its own.
void RunFolder::RemoveLeftovers() const {
  for (const fs::path& folder : {paths_.root, paths_.Logs(), paths_.Profiles()}) {
    std::vector<fs::path> leftovers;
    std::error_code ignored;  // what stays costs only space
    for (fs::directory_iterator entry(folder, ignored), last; !ignored && entry != last;
         entry.increment(ignored)) {
      if (IsLeftover(entry->path())) leftovers.push_back(entry->path());
    }
    for (const fs::path& leftover : leftovers) fs::remove_all(leftover, ignored);
  }
}

bool HasResult(const RunPaths& paths, std::string& damage) {
  std::error_code error;
  const fs::path folder = paths.Result();
  if (!fs::exists(folder, error)) return false;
  if (fs::is_directory(folder, error) && fs::is_empty(folder, error)) return false;
  try {
    // Earlier versions wrote no manifest.
    if (!VerifyWeights(folder)) WeightFileNames(folder, paths.adapter ? "adapter_model" : "model");
    return true;
  } catch (const ExitError& problem) {
    damage = problem.what();
    return false;
  }
}

void RequireSameRecipe(const fs::path& file, const Recipe& recipe) {
  std::vector<std::string> differences;
  try {
    differences = Differences(recipe, LoadRecipe(file, {}));
  } catch (const ExitError& error) {
    throw ExitError(ExitCode::kBadRecipe, file.string() + ": the recipe of the earlier start is damaged (" +
                                              error.what() + "); restore it or give the run another name");
  }
  if (differences.empty()) return;
  std::string list;
  for (const auto& difference : differences) list += (list.empty() ? "" : "; ") + difference;
  const bool finished = fs::exists(RunPaths(recipe).Result());
  throw ExitError(ExitCode::kBadRecipe, file.parent_path().string() + ": this run was " +
                                            (finished ? "made" : "started") +
                                            " with another recipe: " + list +
                                            ". Give this one another name (name=...), or undo the change" +
                                            (finished ? "; the run is finished: with another name, " +
                                                            GoOnFrom(recipe) + " trains on from its result"
                                                      : ""));
}

std::string GoOnFrom(const Recipe& recipe) {
  const RunPaths paths(recipe);
  return (paths.adapter ? "adapter.init_from=" : "model.path=") + paths.Result().string();
}

bool MayChange(const std::string& key) {
  return key == "resume" || key == "run.threads" || key == "run.deterministic" || key == "run.dir" ||
         key == "train.log_every_steps" || key == "optimizer.sharding" ||
         key.starts_with("train.activation_") || key.starts_with("checkpoint.") ||
         key.starts_with("profile.") || key.starts_with("log.") || key.starts_with("watchdog.") ||
         key.starts_with("guard.");
}

std::map<std::string, nlohmann::json> DecidingKeys(const Recipe& recipe) {
  std::map<std::string, nlohmann::json> keys;
  const nlohmann::json canonical = recipe.Canonical();
  for (const auto& [key, value] : canonical.items()) {
    if (!MayChange(key)) keys.emplace(key, value);
  }
  return keys;
}

std::string RecipeSha256(const Recipe& recipe) {
  std::map<std::string, nlohmann::json> keys = HashedKeys(recipe);
  for (const std::string_view key : kFileKeys) keys.erase(std::string(key));
  return data::Sha256OfBytes(nlohmann::json(keys).dump());
}

std::string EarlierRecipeSha256(const Recipe& recipe) {
  return data::Sha256OfBytes(nlohmann::json(HashedKeys(recipe)).dump());
}

namespace {

using Keys = std::map<std::string, nlohmann::json>;

std::vector<std::string> DifferencesOf(const Keys& left, Keys right) {
  std::vector<std::string> differences;
  for (const auto& [key, value] : left) {
    const auto found = right.find(key);
    if (found == right.end()) {
      differences.push_back(key + ": " + value.dump() + " (was not set)");
      continue;
    }
    if (!SameValue(key, value, found->second)) {
      differences.push_back(key + ": " + value.dump() + " (was " + found->second.dump() + ")");
    }
    right.erase(found);
  }
  for (const auto& [key, value] : right) {
    differences.push_back(key + ": not set (was " + value.dump() + ")");
  }
  return differences;
}

Keys WithoutNames(const Recipe& recipe) {
  Keys keys = DecidingKeys(recipe);
  keys.erase("name");
  for (const std::string_view key : kFileKeys) keys.erase(std::string(key));
  return keys;
}

}  // namespace

std::vector<std::string> Differences(const Recipe& now, const Recipe& before) {
  return DifferencesOf(DecidingKeys(now), DecidingKeys(before));
}

std::vector<std::string> DifferencesOfRuns(const Recipe& now, const Recipe& before) {
  return DifferencesOf(WithoutNames(now), WithoutNames(before));
}

}  // namespace plural::trainer
