// `plural dry-run`: what a recipe would do, before anything runs.
//
// Owns: the command and its figures. Does not own: what they are computed with (train_setup.h, estimate.h,
// data/). Thread rule: main thread.
#pragma once

#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace plural::trainer {

struct DryRunOptions {
  std::string recipe;
  std::vector<std::string> overrides;  // "a.b=c"
  int ranks = 1;
  std::string device;  // cpu | cuda; "": model.device of the recipe, auto as the CPU
  bool json = false;
};

void AddDryRunOptions(CLI::App& command, DryRunOptions& options);

// Makes every check of `plural train` that needs no weights, then prints groups and steps, rows of the trees
// against tokens of the sequences, predicted balance over ranks, parameters, sizes, memory and the files that
// would be written; with `json` one object of those figures that programs want. Writes nothing. Errors: those
// of the recipe, the model's config.json and the corpus.
int RunDryRun(const DryRunOptions& options);

}  // namespace plural::trainer
