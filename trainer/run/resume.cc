#include "trainer/run/resume.h"

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <system_error>
#include <vector>

#include "dist/agreement.h"
#include "trainer/base/error.h"
#include "trainer/base/file_io.h"
#include "trainer/base/json_io.h"
#include "trainer/run/identity.h"
#include "trainer/run/run_folder.h"
#include "trainer/state/checkpoint.h"
#include "trainer/state/replicas.h"
#include "trainer/state/sharded_state.h"

namespace plural::trainer {
namespace {

namespace fs = std::filesystem;

// What `resume` names, without a slash behind it.
fs::path OtherCheckpoint(const Recipe& recipe) {
  fs::path folder = fs::path(recipe.resume).lexically_normal();
  return folder.has_filename() ? folder : folder.parent_path();
}

// The checkpoint belongs to the recipe beside its run, and that one means what `recipe` means.
void RequireSameRun(const Recipe& recipe, const fs::path& checkpoint, const Identity& saved) {
  std::error_code error;
  const fs::path absolute = fs::absolute(checkpoint, error);
  const fs::path file = absolute.parent_path().parent_path() / "recipe.yaml";
  if (!fs::exists(file, error)) {
    throw ExitError(ExitCode::kMissingInput,
                    checkpoint.string() +
                        " (resume): no recipe.yaml two folders above it says what its run is; "
                        "name a checkpoint in the folder of its run");
  }
  const Recipe other = LoadRecipe(file, {});
  if (saved.recipe_sha256 != RecipeSha256(other) && saved.recipe_sha256 != EarlierRecipeSha256(other)) {
    throw ExitError(ExitCode::kBadData, checkpoint.string() + " (resume): made with another recipe than " +
                                            file.string() + "; restore the one that belongs to it");
  }
  std::string list;
  for (const std::string& difference : DifferencesOfRuns(recipe, other)) {
    list += (list.empty() ? "" : "; ") + difference;
  }
  if (list.empty()) return;
  throw ExitError(ExitCode::kBadRecipe,
                  checkpoint.string() + " (resume): its run has another recipe: " + list +
                      ". Undo the change, or begin anew with what that run has learned (" + GoOnFrom(other) +
                      ", when it is finished)");
}

void RequireNotOwn(const Recipe& recipe) {
  std::error_code error;
  if (fs::equivalent(OtherCheckpoint(recipe).parent_path(), RunPaths(recipe).Checkpoints(), error)) {
    throw ExitError(ExitCode::kBadRecipe, "resume is " + recipe.resume +
                                              ", a checkpoint of this run itself, which goes on from its "
                                              "newest one; to go on from this one, give the run another "
                                              "name (name=...)");
  }
}

void RequireOther(const Recipe& recipe) {
  const fs::path folder = OtherCheckpoint(recipe);
  std::error_code error;
  if (!fs::exists(folder / "state.json", error)) {
    throw ExitError(ExitCode::kMissingInput, "resume is " + recipe.resume +
                                                 ": no checkpoint is there; give the folder of one, or auto, "
                                                 "require or never");
  }
  const std::string state = (folder / "state.json").string();
  RequireSameRun(recipe, folder, IdentityFromJson(ReadJsonFile(state), state));
}

// The second copies.
std::optional<Checkpoints> MirrorOf(const Recipe& recipe) {
  if (recipe.checkpoint.mirror.empty()) return std::nullopt;
  return Checkpoints(recipe.MirrorFolder(), recipe.checkpoint.keep);
}

void RemoveLeftoversOf(const Checkpoints& mirror) {
  try {
    mirror.RemoveLeftovers();
  } catch (const ExitError&) {  // not listed: LoadNewest says whether that matters
  }
}

// A copy of metrics.jsonl lies beside those of the checkpoints.
void RestoreMetrics(const Recipe& recipe, std::int64_t committed_bytes, RunLog& log) {
  const fs::path metrics = RunPaths(recipe).Metrics();
  std::error_code error;
  const auto size = [&](const fs::path& file) {
    const std::uintmax_t bytes = fs::file_size(file, error);
    return error ? std::int64_t{0} : static_cast<std::int64_t>(bytes);
  };
  const fs::path copy = recipe.MirrorFolder() / metrics.filename();
  const std::int64_t own = size(metrics);
  if (own >= committed_bytes || size(copy) <= own) return;
  WriteFileDurably(metrics, ReadFile(copy).substr(0, static_cast<std::size_t>(committed_bytes)));
  log.Warn(metrics.string() + ": was gone or cut; it is taken from " + copy.string());
}

}  // namespace

bool HasCheckpoint(const Recipe& recipe) {
  if (!Checkpoints(RunPaths(recipe).Checkpoints(), recipe.checkpoint.keep).Steps().empty()) return true;
  const std::optional<Checkpoints> mirror = MirrorOf(recipe);
  try {
    return mirror && !mirror->Steps().empty();
  } catch (const ExitError& error) {
    throw ExitError(error.Code(), std::string("checkpoint.mirror: ") + error.what());
  }
}

std::string CheckStart(const Recipe& recipe) {
  RequireStart(recipe);
  if (HasCheckpoint(recipe)) return "from the newest checkpoint of this run";
  if (!recipe.ResumesFromFolder()) return "";
  const fs::path folder = OtherCheckpoint(recipe);
  const SavedState saved = CheckCheckpoint(folder, EpochSums(*recipe.method, recipe.SettingsOfMethod()));
  std::vector<std::string> gone;  // the rest of the command needs what is gone
  Identity now = IdentityOfInputs(recipe, gone);
  now.recipe_sha256 = saved.identity.recipe_sha256;  // compared by RequireStart
  RequireSameIdentity(now, saved.identity, folder.string());
  return "after step " + std::to_string(saved.position.step) + ", from " + folder.string() +
         ", which is whole";
}

void RequireStart(const Recipe& recipe) {
  if (recipe.resume == "auto") return;
  const RunPaths paths(recipe);
  const bool has_checkpoint = HasCheckpoint(recipe);
  std::error_code error;
  const bool has_result = fs::exists(paths.Result(), error) && !fs::is_empty(paths.Result(), error);
  if (recipe.resume == "never" && (has_checkpoint || has_result)) {
    throw ExitError(ExitCode::kCannotCreate,
                    paths.root.string() + ": holds " + (has_checkpoint ? "checkpoints" : "a result") +
                        ", and resume is never; give the run another name (name=...), remove the folder, or "
                        "set resume to auto");
  }
  if (recipe.resume == "require" && !has_checkpoint && !has_result) {
    throw ExitError(ExitCode::kMissingInput,
                    paths.root.string() +
                        ": holds no checkpoint to go on from, and resume is require; see "
                        "whether run.dir and name are those of the run, or set resume to "
                        "auto");
  }
  if (recipe.ResumesFromFolder()) RequireNotOwn(recipe);
  // Started again, it goes on from its own checkpoints, whatever has become of the other.
  if (recipe.ResumesFromFolder() && !has_checkpoint && !has_result) RequireOther(recipe);
}

void Resume(TrainState& state, const Recipe& recipe, const dist::World& world, dist::Collectives& collectives,
            RunLog& log) {
  const Identity identity = state.identity;
  const Provenance provenance = state.provenance;
  std::string folder;  // of the checkpoint; "": none
  OnEveryRank(world, collectives, [&] {
    if (world.Rank() != 0) return;
    const Checkpoints checkpoints(RunPaths(recipe).Checkpoints(), recipe.checkpoint.keep);
    checkpoints.RemoveLeftovers();
    const std::optional<Checkpoints> mirror = MirrorOf(recipe);
    if (mirror) RemoveLeftoversOf(*mirror);
    Checkpoints::Loaded loaded = checkpoints.LoadNewest(state, mirror ? &*mirror : nullptr);
    for (const auto& warning : loaded.warnings) log.Warn(warning);
    if (mirror && !loaded.folder.empty()) {
      if (loaded.folder.parent_path() == mirror->Folder()) {
        log.Warn("goes on from " + loaded.folder.string() + ", the second copy (checkpoint.mirror)");
      }
      RestoreMetrics(recipe, state.position.metrics_bytes, log);
    }
    if (loaded.folder.empty() && recipe.ResumesFromFolder()) {
      loaded.folder = OtherCheckpoint(recipe);
      LoadCheckpoint(loaded.folder, state);
      RequireSameRun(recipe, loaded.folder, state.identity);
      state.identity.recipe_sha256 = identity.recipe_sha256;
      state.position.metrics_bytes = 0;  // of a file that is not this run's
      state.provenance.restarts = -1;    // nor are its restarts
      log.Info("goes on from " + loaded.folder.string() + ", a checkpoint of another run");
    }
    if (loaded.folder.empty()) return;
    folder = loaded.folder.string();
    if (state.identity.recipe_sha256 == EarlierRecipeSha256(recipe)) {
      state.identity.recipe_sha256 = identity.recipe_sha256;
    }
    RequireSameIdentity(identity, state.identity, loaded.folder.string());
    state.identity = identity;  // an earlier version's checkpoint may lack a part of it
    const Provenance saved = state.provenance;
    state.provenance = provenance;
    state.provenance.restarts = saved.restarts + 1;
    const bool other_sums = saved.ranks != provenance.ranks && !recipe.train.canonical;
    if (other_sums || saved.version != provenance.version || saved.threads != provenance.threads) {
      log.Warn("resumed with " + std::to_string(provenance.ranks) + " ranks of " +
               std::to_string(provenance.threads) + " threads, version " + provenance.version +
               "; the checkpoint was made with " + std::to_string(saved.ranks) + " ranks of " +
               std::to_string(saved.threads) + " threads, version " + saved.version +
               ": numbers may differ in the last digits");
    }
  });
  BroadcastState(state, collectives);
  if (!state.shards) return;
  collectives.Broadcast(folder, 0);
  if (!folder.empty()) ReadMoments(MomentsFile(folder), state, collectives);
}

}  // namespace plural::trainer
