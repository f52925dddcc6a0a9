// Streaming: prompts come as JSON lines while earlier ones are answered.
//
// Owns: the protocol of requests and answers (docs/running.md), reading without waiting while there is work.
// Does not own: decoding (generator.h), text: prompts and answers are token ids. Thread rule: one thread.
#pragma once

#include <cstdint>
#include <iosfwd>

#include "data/corpus.h"
#include "trainer/generate/generator.h"

namespace plural::trainer {

// Answers the requests of file descriptor `input` on `output`, one line each and as soon as it is complete,
// until the input ends. A request's keys go before `defaults`. Requests that wait are decoded together, at
// most `rows` histories side by side; an answer does not depend on what else is decoded.
// `vocabulary` spells texts; null: token ids only.
// Errors: ExitError(kBadData) naming the line of a request that is no request; those of Generator.
void AnswerStream(const Decoder& model, const GenerateSettings& defaults, std::int64_t rows,
                  const data::Corpus* vocabulary, int input, std::ostream& output);

}  // namespace plural::trainer
