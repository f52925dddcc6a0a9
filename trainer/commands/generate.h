// `plural generate`: responses to the prompts of a corpus.
//
// Owns: the command's options, the split of prompts over ranks, the output file. Does not own:
// decoding (generate/). Thread rule: main thread. COLLECTIVE.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "dist/collectives.h"
#include "dist/world.h"
#include "trainer/commands/generate_methods.h"

namespace CLI {
class App;
}

namespace plural::trainer {

struct GenerateOptions {
  std::string model, adapter, corpus, output;
  MethodOptions method;
  std::string preset;  // the papers' settings, for what is not given below
  std::optional<std::int64_t> responses, max_new_tokens, top_k;
  std::optional<double> temperature, top_p;
  std::string possibilities = "none";
  std::string latents;  // empty: none
  std::int64_t min_new_tokens = 0;
  bool stream = false;
  std::uint64_t seed = 42;
  std::int64_t limit = 0;  // prompts; 0: all
  std::int64_t batch_rows = kDefaultRows;
  std::string dtype = "fp32";
  std::int64_t threads = 0;
};

void AddGenerateOptions(CLI::App& command, GenerateOptions& options);

// Writes one JSON object a prompt, in corpus order, the same on any number of ranks but for `seconds`:
// docs/running.md lists its fields. The file appears whole. With `stream` it answers requests instead
// (generate/streaming.h), on one rank only.
int RunGenerate(const GenerateOptions& options, dist::World& world, dist::Collectives& collectives);

}  // namespace plural::trainer
