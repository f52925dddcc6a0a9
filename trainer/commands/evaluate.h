// `plural evaluate`: exact figures of a model on a corpus, by teacher forcing, nothing sampled.
//
// Owns: the command, averages over groups. Does not own: the figures of a group (evaluation.h). Thread
// rule: main thread. COLLECTIVE.
#pragma once

#include <string>

#include "dist/collectives.h"
#include "dist/world.h"
#include "trainer/commands/model_options.h"

namespace CLI {
class App;
}

namespace plural::trainer {

struct EvaluateOptions {
  std::string model, adapter, corpus, output;
  ComputeOptions compute;
  std::int64_t limit = 0;      // groups; 0: all
  bool force = false;          // replace the output
  bool compare_base = false;   // also the base model, and how far the adapter moved it
  bool possibilities = false;  // also what the possibility numbers decide
};

void AddEvaluateOptions(CLI::App& command, EvaluateOptions& options);

// A corpus of the `targets` format: per prompt and on average KL(p* || p), cross-entropy, H(p*), entropy
// on the targets (nats), mass on the targets and the targets expected among 1,000 draws. Other corpora:
// likelihood of the responses (nats per token, perplexity). Averages come with 95 % bootstrap intervals over
// groups. Writes JSON; prints the averages. Errors: ExitError(kUsage) for compare_base without an adapter,
// ExitError(kBadData) for possibilities on a corpus without numbers.
int RunEvaluate(const EvaluateOptions& options, dist::World& world, dist::Collectives& collectives);

}  // namespace plural::trainer
