#include "trainer/run/run_folder.h"

#include <cstdio>

#include "data/sha256.h"
#include "trainer/base/error.h"
#include "trainer/base/file_io.h"

namespace plural::trainer {
namespace fs = std::filesystem;

fs::path RunPaths::LogOf(int rank) const {
  char name[32];
  std::snprintf(name, sizeof(name), "rank-%05d.log", rank);
  return Logs() / name;
}

RunFolder::RunFolder(const Recipe& recipe) : paths_(recipe) {
  std::error_code error;
  fs::create_directories(paths_.Logs(), error);
  if (error) {
    throw ExitError(ExitCode::kCannotCreate, paths_.root.string() +
                                                 ": the run folder cannot be made: " + error.message() +
                                                 "; give a folder that can be written (run.dir)");
  }
  lock_.emplace(paths_.Lock());
  if (fs::exists(paths_.RecipeFile())) RequireSameRecipe(paths_.RecipeFile(), recipe);
  const std::string text = recipe.ResolvedYaml();
  if (!fs::exists(paths_.RecipeFile()) || ReadFile(paths_.RecipeFile()) != text) {
    WriteFileDurably(paths_.RecipeFile(), text);
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
  return key == "run.threads" || key == "run.dir" || key == "train.log_every_steps" ||
         key.starts_with("train.activation_") || key.starts_with("checkpoint.") ||
         key.starts_with("profile.") || key.starts_with("log.");
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
  return data::Sha256OfBytes(nlohmann::json(DecidingKeys(recipe)).dump());
}

std::vector<std::string> Differences(const Recipe& now, const Recipe& before) {
  auto left = DecidingKeys(now);
  auto right = DecidingKeys(before);
  std::vector<std::string> differences;
  for (const auto& [key, value] : left) {
    const auto found = right.find(key);
    const std::string was = found == right.end() ? "not set" : found->second.dump();
    if (value.dump() != was) differences.push_back(key + ": " + value.dump() + " (was " + was + ")");
    if (found != right.end()) right.erase(found);
  }
  for (const auto& [key, value] : right) {
    differences.push_back(key + ": not set (was " + value.dump() + ")");
  }
  return differences;
}

}  // namespace plural::trainer
