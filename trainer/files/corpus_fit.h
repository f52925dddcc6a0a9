// Whether a corpus and a model belong together.
//
// Owns: opening a corpus on all ranks, the comparison of its tokenizer with the model folder's. Does not own:
// what a corpus must be (data/corpus.h). Thread rule: main thread.
#pragma once

#include <string>

#include "data/corpus.h"
#include "dist/world.h"
#include "trainer/model/config.h"

namespace plural::trainer {

// Opens a corpus. Rank 0 alone reads it whole, to compare it with its sidecar and to check its tokens.
data::Corpus OpenCorpus(const std::string& path, const dist::World& world);

// Errors: ExitError(kBadData), with both values, when the corpus was tokenised with another tokenizer than
// the one in `model_folder` (not checked when that folder has no tokenizer file of the corpus's name;
// returns false then), or has ids outside the model's vocabulary.
bool CheckCorpusFitsModel(const data::Corpus& corpus, const ModelConfig& config,
                          const std::string& model_folder);

// Errors: ExitError(kBadData) when `longest`, of the corpus, has more tokens than the model has positions;
// with `latent` a sequence has one more.
void RequireWithinContext(const data::Corpus& corpus, data::Corpus::Longest longest,
                          const ModelConfig& config, bool latent);

}  // namespace plural::trainer
