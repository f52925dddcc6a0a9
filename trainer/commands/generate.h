// `plural generate`: responses to the prompts of a corpus.
//
// Owns: which answerer answers, the split of prompts over ranks, the output file. Does not own: options
// (generate_options.h), decoding (generate/). Thread rule: main thread. COLLECTIVE.
#pragma once

#include "dist/collectives.h"
#include "dist/world.h"
#include "trainer/commands/generate_options.h"

namespace plural::trainer {

// Writes one JSON object per prompt, in corpus order, the same on any number of ranks but for `seconds`:
// docs/running.md lists its fields. The file appears whole. With `stream` it answers requests instead
// (generate/streaming.h), on one rank only.
int RunGenerate(const GenerateOptions& options, dist::World& world, dist::Collectives& collectives);

}  // namespace plural::trainer
