// `plural rate`: how well the responses of an answers file fit their prompts, in the model's own judgement.
//
// Owns: the command's options, its lines, the split over ranks. Does not own: the rating (generate/rerank.h).
// Thread rule: main thread.
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

struct RateOptions {
  std::string model, rating_corpus, input, output;
  ComputeOptions compute;
  bool force = false;  // replace the output
};

void AddRateOptions(CLI::App& command, RateOptions& options);

// Copies the lines of an answers file of `plural generate` and gives every response "rating", the expected
// rating 1..10, and "mass_below_6", the probability of a rating below 6; both null where a response has a
// text but no token ids (items of a list that share tokens), which is warned about. Rated are the ids in
// "tokens", not a text that was changed since. Lines keep their order; ranks take them in turn. The output
// appears whole. COLLECTIVE. Errors: ExitError(kBadData) naming file and line for a line that is no answer, a
// token id outside the vocabulary, a file without responses; DataError as RatingCorpus and RateResponses.
int RunRate(const RateOptions& options, dist::World& world, dist::Collectives& collectives);

}  // namespace plural::trainer
