// `plural generate`: responses to the prompts of a corpus.
//
// Owns: the command's options, the split of prompts over ranks, the output file. Does not own:
// decoding (generate/generator.h). Thread rule: main thread. COLLECTIVE.
#pragma once

#include <string>
#include <vector>

#include "dist/collectives.h"
#include "dist/world.h"
#include "trainer/generate/generator.h"

namespace CLI {
class App;
}

namespace plural::trainer {

struct GenerateOptions {
  std::string model, adapter, corpus, output;
  std::string dtype = "fp32";
  std::string possibilities = "none";
  std::int64_t limit = 0;  // prompts; 0: all
  std::int64_t batch_responses = 64;
  std::int64_t threads = 0;
  GenerateSettings settings;
};

void AddGenerateOptions(CLI::App& command, GenerateOptions& options);

// Writes one JSON object a prompt, in corpus order, the same on any number of ranks:
// {"id","prompt","responses":[{"index","possibility","text","tokens","logprob_nats","finished"}]}.
// The file appears whole.
int RunGenerate(const GenerateOptions& options, dist::World& world, dist::Collectives& collectives);

}  // namespace plural::trainer
