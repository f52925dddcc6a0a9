// Suggestions: what somebody who wrote an unknown key probably meant.
//
// Owns: nearness of names, and the words of other fine-tuning programs for our keys. Does not own: which
// keys exist (schema.h). Thread rule: pure functions.
#pragma once

#include <string>
#include <string_view>

namespace plural::trainer {

// Edits that turn `a` into `b`: insertions, deletions, substitutions, swaps of neighbours.
int EditDistance(std::string_view a, std::string_view b);

// "keys of adapter: type, rank, ..."; of the whole recipe for "".
std::string KnownKeys(const std::string& section);

// How to go on after the unknown key `name` ("adapter.lora_r"): "use adapter.rank", "did you mean ...?" or
// the keys of its section. Never empty.
std::string Suggest(const std::string& name);

}  // namespace plural::trainer
