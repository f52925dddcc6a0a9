// Answers as JSON: the keys that files and streams of responses share (docs/running.md).
//
// Owns: the names and units of what a response and a prompt report. Does not own: lines, prompts.
// Thread rule: pure functions.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "data/corpus.h"
#include "trainer/generate/generator.h"

namespace plural::trainer {

// {"responses": [...], "decode_steps", "token_forwards", "seconds", ...}. `vocabulary` spells the responses'
// texts; null: token ids only.
nlohmann::json AnswerJson(const GeneratedPrompt& answer, const data::Corpus* vocabulary);

}  // namespace plural::trainer
