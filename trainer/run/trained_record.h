// How a result came about, for the card beside its weights (model_card.h).
//
// Owns: which facts and figures those are. Does not own: their form in the card. Thread rule: a function that
// reads a file.
#pragma once

#include <filesystem>
#include <string>

#include "trainer/recipe/recipe.h"
#include "trainer/state/train_state.h"

namespace plural::trainer {

// A JSON object: command, method, seed, steps, groups, hashes of the corpus and of the base weights, the
// licence of the base where it is known, and "figures": the loss of the last step and the figures of the last
// validation in `metrics` (a run's metrics.jsonl), with four digits as texts, so that ranks that sum in
// another order do not show. Errors: those of ReadFile.
std::string TrainedRecord(const Recipe& recipe, const TrainState& state, const std::filesystem::path& metrics,
                          const std::string& base_license);

}  // namespace plural::trainer
