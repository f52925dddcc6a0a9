// One group of a corpus, decoded for people.
//
// Owns: decoding to a terminal without letting it be controlled by the data, marks of penalised tokens.
// Does not own: the corpus. Thread rule: main thread.
#pragma once

#include <string>

#include "data/corpus.h"

namespace plural::trainer {

// `response` decoded, penalised runs of tokens between [[ and ]], or underlined in red with `colour`.
std::string MarkPenalised(const data::Corpus& corpus, const data::Response& response, data::MaskMode mode,
                          bool colour);

// Prints prompt, tails and the first responses to standard output; colours on a terminal, unless the
// environment variable NO_COLOR is set.
void ShowGroup(const data::Corpus& corpus, const data::Group& group, data::MaskMode mode);

}  // namespace plural::trainer
