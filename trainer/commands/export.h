// `plural export`: an adapter merged into the weights of its model.
//
// Owns: the command's options and its report. Does not own: the merge (files/merge.h). Thread rule: main
// thread.
#pragma once

#include <cstdint>
#include <string>

namespace CLI {
class App;
}

namespace plural::trainer {

struct ExportOptions {
  std::string model, adapter, output;
  bool force = false;  // replace the output
  std::string dtype = "base";
  std::int64_t shard_bytes = 5'000'000'000;
};

void AddExportOptions(CLI::App& command, ExportOptions& options);

// Prints what was written. One process. Errors: those of MergeAdapter.
int RunExport(const ExportOptions& options);

}  // namespace plural::trainer
