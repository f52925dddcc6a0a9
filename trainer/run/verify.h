// Verify: is what a run's folder holds whole?
//
// Owns: what is looked at, and what counts as damage. Does not own: the readers, which are those of a resume
// (state/checkpoint.h, files/weight_manifest.h, recipe/recipe.h), the printed form (commands/verify.h).
// Nothing is changed, and no lock is taken. Thread rule: one thread.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace plural::trainer {

struct Finding {
  enum class State {
    kGood,
    kNote,
    kBad
  };  // a note is no damage: what could not be compared, what is left over
  State state = State::kGood;
  std::string what;  // "checkpoints/step-00000200"
  std::string text;
};

struct RunReport {
  std::string state;   // "finished", "unfinished", "running"
  std::string holder;  // of a running one: "process 12 on host"
  std::vector<Finding> findings;

  std::size_t Bad() const;
};

// In a run that is being trained it judges only what stays as it is meanwhile. Errors:
// ExitError(kMissingInput) when there is no run in `folder`.
RunReport VerifyRun(const std::filesystem::path& folder);

}  // namespace plural::trainer
