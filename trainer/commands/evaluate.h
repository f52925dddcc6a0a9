// `plural evaluate`: exact figures of a model on a corpus, by teacher forcing, nothing sampled.
//
// Owns: the command and its figures. Does not own: the forward pass (objective.h). Thread rule: main
// thread. COLLECTIVE.
#pragma once

#include <string>

#include "dist/collectives.h"
#include "dist/world.h"

namespace CLI {
class App;
}

namespace plural::trainer {

struct EvaluateOptions {
  std::string model, adapter, corpus, output;
  std::string dtype = "fp32";
  std::int64_t limit = 0;  // groups; 0: all
  std::int64_t threads = 0;
};

void AddEvaluateOptions(CLI::App& command, EvaluateOptions& options);

// A corpus of the `targets` format: per prompt and on average KL(p* || p), cross-entropy, H(p*), entropy
// on the targets (nats) and mass on the targets. Other corpora: likelihood of the responses
// (nats a token, perplexity). Writes JSON; prints the averages.
int RunEvaluate(const EvaluateOptions& options, dist::World& world, dist::Collectives& collectives);

}  // namespace plural::trainer
