#include "trainer/run/verify.h"

#include <algorithm>
#include <map>
#include <optional>
#include <system_error>
#include <utility>

#include "data/corpus.h"
#include "data/error.h"
#include "trainer/base/error.h"
#include "trainer/base/file_io.h"
#include "trainer/base/readable.h"
#include "trainer/files/weight_manifest.h"
#include "trainer/recipe/recipe.h"
#include "trainer/run/identity.h"
#include "trainer/run/metrics_check.h"
#include "trainer/run/run_folder.h"
#include "trainer/run/run_lock.h"
#include "trainer/state/checkpoint.h"

namespace plural::trainer {
namespace {

namespace fs = std::filesystem;
using State = Finding::State;

bool Exists(const fs::path& path) {
  std::error_code error;
  return fs::exists(fs::symlink_status(path, error));
}

class Verifier {
 public:
  explicit Verifier(const fs::path& folder) : paths_(folder, /*makes_adapter=*/true) {}

  RunReport Report() {
    const LockHolder holder = HolderOf(paths_.Lock());
    lives_ = holder.state == LockHolder::State::kLives;
    if (lives_) Note("run.lock", "the run is being trained by " + holder.name);
    if (holder.state == LockHolder::State::kElsewhere) {
      Note("run.lock", holder.name + " trained the run last; whether it still does is not known here");
    }
    ReadRecipe();
    // The result appears after the last line of metrics.jsonl: what is there now has them.
    ReadResult();
    ReadCheckpoints();
    ReadMetrics();
    CompareCorpora();
    NoteLeftovers();
    report_.state = lives_ ? "running" : finished_ ? "finished" : "unfinished";
    if (lives_) report_.holder = holder.name;
    return std::move(report_);
  }

 private:
  void Say(State state, const std::string& what, const std::string& text) {
    report_.findings.push_back({state, what, text});
  }
  void Good(const std::string& what, const std::string& text) { Say(State::kGood, what, text); }
  void Note(const std::string& what, const std::string& text) { Say(State::kNote, what, text); }
  void Bad(const std::string& what, const std::string& text) { Say(State::kBad, what, text); }

  void ReadRecipe() {
    try {
      recipe_ = LoadRecipe(paths_.RecipeFile(), {});
      paths_.adapter = recipe_->adapter.lora;
      Good("recipe.yaml", "a recipe of method " + std::string(recipe_->method->name));
    } catch (const ExitError& error) {
      Bad("recipe.yaml", error.what());
      paths_.adapter = !Exists(paths_.root / "model");
    }
  }

  void ReadResult() {
    const std::string name = paths_.Result().filename().string();
    if (lives_) {
      if (Exists(paths_.Result())) Note(name, "not looked at while the run is being trained");
      return;
    }
    std::string damage;
    try {
      finished_ = HasResult(paths_, damage);
    } catch (const data::MissingInput& error) {  // gone or unreadable since
      damage = error.what();
    }
    if (!damage.empty()) return Bad(name, damage);
    if (!finished_) return Note(name, "not there: the run is not finished");
    if (Exists(paths_.Result() / kWeightManifest)) {
      Good(name, std::string("the weight files are as ") + kWeightManifest + " says");
    } else {
      Note(name, std::string("no ") + kWeightManifest + " says how the weight files were written");
    }
  }

  void ReadCheckpoints() {
    const Checkpoints checkpoints(paths_.Checkpoints(), /*keep=*/1);
    std::vector<std::int64_t> steps;
    try {
      steps = checkpoints.Steps();
    } catch (const ExitError& error) {
      return Bad("checkpoints", error.what());
    }
    if (steps.empty()) Note("checkpoints", "none");
    for (const std::int64_t step : steps) ReadCheckpoint(checkpoints.StepFolder(step), "checkpoints/");
    ReadMirror();
    NameTheBest(checkpoints);
  }

  // Second copies. The newest whole checkpoint may be one of them.
  void ReadMirror() {
    if (!recipe_ || recipe_->checkpoint.mirror.empty()) return;
    const Checkpoints mirror(recipe_->MirrorFolder(), /*keep=*/1);
    std::optional<SavedState> own = std::move(newest_);
    newest_.reset();
    try {
      const std::vector<std::int64_t> steps = mirror.Steps();
      if (steps.empty()) Note("mirror", mirror.Folder().string() + " holds no copies");
      for (const std::int64_t step : steps) ReadCheckpoint(mirror.StepFolder(step), "mirror/");
    } catch (const ExitError& error) {
      Bad("mirror", error.what());
    }
    if (own && (!newest_ || own->position.step >= newest_->position.step)) newest_ = std::move(own);
  }

  // What checkpoint.keep_best keeps, as the newest checkpoint says.
  void NameTheBest(const Checkpoints& checkpoints) {
    if (!newest_ || !recipe_ || !recipe_->KeepsBest()) return;
    const std::string& figure = recipe_->checkpoint.keep_best;
    const auto best = newest_->validation.best.find(figure);
    if (best == newest_->validation.best.end()) return;
    const std::string name = "checkpoints/" + checkpoints.StepFolder(best->second.step).filename().string();
    const std::string text = "the best by the validation's " + figure + ", " + FourDigits(best->second.value);
    for (Finding& finding : report_.findings) {
      if (finding.what == name && finding.state == State::kGood) {
        finding.text += "; " + text;
        return;
      }
    }
    Note(name, text + ", is not there or not whole");
  }

  // `where`: "checkpoints/".
  void ReadCheckpoint(const fs::path& folder, const std::string& where) {
    const std::string name = where + folder.filename().string();
    try {
      const Sums sums = recipe_ ? EpochSums(*recipe_->method, recipe_->SettingsOfMethod()) : Sums();
      SavedState saved = CheckCheckpoint(folder, sums);
      const std::string& recipe = saved.identity.recipe_sha256;
      if (recipe_ && recipe != RecipeSha256(*recipe_) && recipe != EarlierRecipeSha256(*recipe_)) {
        return Bad(name, "made with another recipe than recipe.yaml");
      }
      Good(name, "whole, after " + Counted(saved.position.step, "step") + " and " +
                     Counted(saved.position.consumed_groups, "group"));
      newest_ = std::move(saved);
    } catch (const ExitError& error) {
      if (lives_ && !Exists(folder)) return;  // the run has removed it meanwhile
      Bad(name, error.what());
    }
  }

  void ReadMetrics() {
    const std::string name = "metrics.jsonl";
    const std::int64_t committed = newest_ ? newest_->position.metrics_bytes : 0;
    if (!Exists(paths_.Metrics())) {
      if (committed > 0 || finished_) return Bad(name, "not there");
      return Note(name, "not there: the run has not begun");
    }
    MetricsCheck check;
    try {
      check = CheckMetrics(paths_.Metrics(), recipe_ ? recipe_->train.log_every_steps : 1);
    } catch (const ExitError& error) {
      return Bad(name, error.what());
    }
    const std::string lines = Counted(check.lines, "line") + " up to step " + std::to_string(check.last_step);
    if (check.bytes < committed) {
      return Bad(name, (check.problem.empty() ? lines : check.problem) + "; " + std::to_string(check.bytes) +
                           " of the " + std::to_string(committed) +
                           " bytes that the newest checkpoint has seen are right");
    }
    if (finished_ && (!check.problem.empty() || !check.ended)) {
      return Bad(name, check.problem.empty() ? lines + ", without the line that ends a finished run"
                                             : check.problem);
    }
    Good(name, lines + ", in order");
    if (!check.lost.empty()) {
      Note(name, "lines of " + check.lost + " were lost before a resume, which says so");
    }
    if (!check.problem.empty() && !(lives_ && check.cut)) {
      Note(name, "behind them, where the next start writes anew: " + check.problem);
    }
  }

  // Paths are as the recipe has them, so relative ones are looked for from where the command was started.
  void CompareCorpora() {
    if (!recipe_ || !newest_) return;
    CompareCorpus("data.train", recipe_->data.train, newest_->identity.corpus);
    if (!newest_->identity.validation.empty()) {
      CompareCorpus("data.validation", recipe_->data.validation, newest_->identity.validation);
    }
  }

  void CompareCorpus(const std::string& key, const std::string& path, const std::string& saved) {
    if (!Exists(path)) return Note(key, path + " is not there; not compared");
    try {
      const data::Corpus corpus(path, {.verify_sidecar = false, .scan_tokens = false});
      const std::string now = IdentityOfCorpus(corpus);
      if (now != saved) {
        return Bad(key, path + " is another corpus than the run's: it was " + saved + ", now it is " + now);
      }
      Good(key, path + (corpus.Info().sha256.empty() ? " has the size and the time that it had"
                                                     : " has the SHA-256 that it had, says its sidecar"));
    } catch (const data::DataError& error) {
      Bad(key, error.what());
    } catch (const data::MissingInput& error) {
      Bad(key, error.what());
    }
  }

  void NoteLeftovers() {
    for (const fs::path& folder : {paths_.root, paths_.Checkpoints()}) {
      std::error_code error;
      for (fs::directory_iterator entry(folder, error), last; !error && entry != last;
           entry.increment(error)) {
        const std::string name = entry->path().lexically_relative(paths_.root).string();
        if (IsLeftover(entry->path()) && !lives_) {
          Note(name, "left by a start that was killed; the next one removes it");
        }
        if (entry->path().filename().string().find(".bad-") != std::string::npos) {
          Note(name, "set aside by an earlier start, which found it damaged");
        }
      }
    }
  }

  RunPaths paths_;
  RunReport report_;
  bool lives_ = false, finished_ = false;
  std::optional<Recipe> recipe_;
  std::optional<SavedState> newest_;  // of the checkpoints that are whole
};

}  // namespace

std::size_t RunReport::Bad() const {
  return static_cast<std::size_t>(
      std::ranges::count(findings, Finding::State::kBad, [](const Finding& one) { return one.state; }));
}

RunReport VerifyRun(const fs::path& folder) {
  const RunPaths paths(folder, /*makes_adapter=*/true);
  if (!Exists(paths.RecipeFile()) && !Exists(paths.Metrics()) && !Exists(paths.Checkpoints())) {
    throw ExitError(ExitCode::kMissingInput,
                    folder.string() +
                        ": no run is there (no recipe.yaml, metrics.jsonl or checkpoints); give "
                        "the folder of a run, such as runs/mine");
  }
  return Verifier(folder).Report();
}

}  // namespace plural::trainer
