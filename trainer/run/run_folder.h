// The run folder: one folder a run, one run a folder.
//
// Owns: where things lie, recipe.yaml, whether a start is a new run, a resume or neither. Does not own: the
// lock (run_lock.h), what the parts contain (metrics.h, checkpoint.h, files/hf_folder.h). Thread rule: one
// thread.
//
//   <run.dir>/<name>/recipe.yaml    resolved, with the origin of each value
//                    run.lock       held by rank 0 while the run lives
//                    metrics.jsonl  checkpoints/  log/rank-00000.log
//                    log/track.log, track.json, tensorboard/, wandb/   of a run with a tracker
//                    profile/rank-00000.json, .txt   of a run with profile.enabled
//                    adapter/ or model/   appears last: the run is finished
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "trainer/recipe/recipe.h"
#include "trainer/run/run_lock.h"

namespace plural::trainer {

struct RunPaths {
  std::filesystem::path root;
  bool adapter = true;  // what the run ends with: an adapter, or a whole model

  explicit RunPaths(const Recipe& recipe) : RunPaths(recipe.RunFolder(), recipe.adapter.lora) {}
  RunPaths(std::filesystem::path folder, bool makes_adapter)
      : root(std::move(folder)), adapter(makes_adapter) {}

  std::filesystem::path RecipeFile() const { return root / "recipe.yaml"; }
  std::filesystem::path Lock() const { return root / "run.lock"; }
  std::filesystem::path Metrics() const { return root / "metrics.jsonl"; }
  std::filesystem::path Checkpoints() const { return root / "checkpoints"; }
  std::filesystem::path Logs() const { return root / "log"; }
  std::filesystem::path Profiles() const { return root / "profile"; }
  std::filesystem::path LogOf(int rank) const;
  std::filesystem::path Result() const { return root / (adapter ? "adapter" : "model"); }
};

// Held by rank 0 for the length of the run.
class RunFolder {
 public:
  // Makes the folder or takes over an earlier start's, without what a killed one left half-written; then
  // recipe.yaml is that of `recipe`.
  // Errors: ExitError(kCannotCreate) when it cannot be made or written, a live process holds it, or a link or
  // a pipe is where a file is written;
  // ExitError(kBadRecipe) listing the keys in which an earlier start's recipe differs.
  explicit RunFolder(const Recipe& recipe);

 private:
  void RequireFiles() const;
  void RemoveLeftovers() const;

  RunPaths paths_;
  std::optional<RunLock> lock_;
};

// Whether a run may go on under another value of this key ("checkpoint.keep"): it decides where and how
// often things are written or how fast they are computed, not what is computed. Of guard.* it is steps that
// stand out alone: a run that was stopped by one must be able to go on.
bool MayChange(const std::string& key);
// The keys that decide the run, flat ("optimizer.lr" -> value).
std::map<std::string, nlohmann::json> DecidingKeys(const Recipe& recipe);
// Their SHA-256, but for those that name files: a run is bound to what is in them (identity.h), not to how
// their paths are spelled. In checkpoints of earlier versions it is of all deciding keys.
std::string RecipeSha256(const Recipe& recipe);
std::string EarlierRecipeSha256(const Recipe& recipe);
// Whether the result is there and whole. `damage` gets what is wrong with one that is there and is not; a
// folder without anything in it is none.
bool HasResult(const RunPaths& paths, std::string& damage);
// Errors: ExitError(kBadRecipe) listing the deciding keys in which `recipe` differs from `file`, the
// recipe.yaml of an earlier start.
void RequireSameRecipe(const std::filesystem::path& file, const Recipe& recipe);
// What trains on from the result of `recipe`'s run: "adapter.init_from=runs/a/adapter".
std::string GoOnFrom(const Recipe& recipe);
// "optimizer.lr: 0.1 (was 0.2)" for each deciding key that differs. Two spellings of a path to the same file
// do not.
std::vector<std::string> Differences(const Recipe& now, const Recipe& before);
// The same between runs of different names, without the keys that name files: what is in those is compared
// by identity.h.
std::vector<std::string> DifferencesOfRuns(const Recipe& now, const Recipe& before);

}  // namespace plural::trainer
