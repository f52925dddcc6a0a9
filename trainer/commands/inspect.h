// `plural inspect`: look into a corpus, a checkpoint or an adapter.
//
// Owns: the command, its printed forms. Does not own: the checks of what it reads (data/corpus.h,
// files/safetensors.h). Thread rule: main thread; memory is bounded by one group and the corpus's offsets.
#pragma once

#include <filesystem>
#include <string>

namespace CLI {
class App;
}

namespace plural::trainer {

struct InspectOptions {
  std::string path;                    // corpus file, or checkpoint or adapter folder
  bool json = false;                   // corpus: one JSON object per group
  std::string groups;                  // corpus: "A:B", A included, B not; empty: all
  std::string mask = "content_first";  // corpus: which penalised words are shown
  int examples = 2;                    // corpus: groups decoded and printed
  bool alignment = false;              // corpus: only what its possibility numbers stand for
  int responses = 4;                   // corpus: of a group, that get a number in those figures
};

void AddInspectOptions(CLI::App& command, InspectOptions& options);

// A corpus as JSON lines:
// {"id","prompt_tokens","tails":{"0":[...],..},"responses":[{"tokens","weight","unlikelihood_mask"}]}
// (a whole sequence is prompt + tail + response; in an aligned corpus responses have "affinity", too), or as
// a summary for people: counts, lengths, what the token tree saves for each method that the corpus can serve,
// what its numbers stand for, decoded examples. With `alignment` only what its numbers stand for
// (show_alignment.h), as JSON one object. A folder: see InspectFolder.
// Errors: DataError, MissingInput; ExitError(kUsage) for a range or mask that does not exist;
// ExitError(kBadData) when `alignment` is asked for and the corpus has none.
int RunInspect(const InspectOptions& options);

// A folder with manifest.json (checkpoint) or adapter_config.json (adapter): settings, files, tensors.
// Errors: ExitError(kBadData), after everything was printed, when a file differs from its manifest;
// ExitError(kMissingInput) when the folder is neither.
void InspectFolder(const std::filesystem::path& folder);

}  // namespace plural::trainer
