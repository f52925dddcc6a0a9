// `plural verify`: is what a run's folder holds whole?
//
// Owns: the command, its printed forms. Does not own: what is checked (run/verify.h). Thread rule: main
// thread.
#pragma once

#include <string>

namespace CLI {
class App;
}

namespace plural::trainer {

struct VerifyOptions {
  std::string run;    // its folder
  bool json = false;  // one JSON object instead of lines
};

void AddVerifyOptions(CLI::App& command, VerifyOptions& options);

// Prints one line for each thing that was looked at, "good", "note" or "bad". Errors: ExitError(kBadData),
// after everything was printed, when something is damaged; ExitError(kMissingInput) without a run.
int RunVerify(const VerifyOptions& options);

}  // namespace plural::trainer
