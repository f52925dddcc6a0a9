// Options and checks that every command with a model shares.
//
// Owns: --dtype and --threads, whether corpus, model and question belong together. Does not own: loading
// (model/load_model.h). Thread rule: main thread.
#pragma once

#include <ATen/core/TensorBody.h>

#include <cstdint>
#include <string>

#include "data/corpus.h"
#include "dist/world.h"
#include "trainer/model/config.h"
#include "trainer/model/decoder.h"

namespace CLI {
class App;
}

namespace plural::trainer {

void AddComputeOptions(CLI::App& command, std::string& dtype, std::int64_t& threads);

// Compute threads of this rank; 0: the machine's cores shared by its ranks.
void SetThreads(std::int64_t threads, const dist::World& world);

// Opens a corpus. Rank 0 alone reads it whole, to compare it with its sidecar and to check its tokens.
data::Corpus OpenCorpus(const std::string& path, const dist::World& world);

// Errors: ExitError(kBadData), with both values, when the corpus was tokenised with another tokenizer than
// the one in `model_folder` (not checked when that folder has no tokenizer file of the corpus's name;
// returns false then), or has ids outside the model's vocabulary.
bool CheckCorpusFitsModel(const data::Corpus& corpus, const ModelConfig& config,
                          const std::string& model_folder);

// Rank 0 says so where `model` has latents: figures of a prompt without one are not what it was trained for.
void WarnOfLatents(const Decoder& model, const dist::World& world);

}  // namespace plural::trainer
