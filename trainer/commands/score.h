// `plural score`: log-probabilities of given responses.
//
// Owns: the command's options, its input and output lines, which sequences share a pass, the split over
// ranks. Does not own: loading (files/load_model.h), the forward pass. Thread rule: main thread.
#pragma once

#include <cstdint>
#include <string>

#include "dist/collectives.h"
#include "dist/world.h"
#include "trainer/commands/model_options.h"

namespace CLI {
class App;
}

namespace plural::trainer {

struct ScoreOptions {
  std::string model, adapter, input, output;
  ComputeOptions compute;
  bool force = false;  // replace the output
};

void AddScoreOptions(CLI::App& command, ScoreOptions& options);

// Reads JSON lines {"id", "prompt_tokens", "response_tokens"} and writes, in input order,
// {"id", "logprob", "token_logprobs"}; of a line that `plural generate` wrote, one line per response, with
// its "index" and "possibility" behind the id. In nats, each response token given all tokens before it;
// `logprob` is their sum in fp64. Consecutive lines with one prompt share its rows. Blocks of lines go to the
// ranks in turn; what a block holds does not depend on the number of ranks, nor do its figures. Memory is
// bounded by the block. The output appears whole. COLLECTIVE.
// Errors: ExitError(kBadData) with the line number for a line that is no such object, an empty list, a token
// id outside the vocabulary, a sequence longer than the model's max_position_embeddings; ExitError(kDiverged)
// when the model gives a non-finite number.
int RunScore(const ScoreOptions& options, dist::World& world, dist::Collectives& collectives);

}  // namespace plural::trainer
