// Train set-up: from a recipe to the parts a run is made of, each checked against the others.
//
// Owns: which model a recipe asks for, whether a corpus can serve it, the loader's settings. Does not own:
// the loop (train.h). Thread rule: one thread; nothing here communicates, all ranks do the same.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "data/corpus.h"
#include "dist/world.h"
#include "trainer/model/config.h"
#include "trainer/model/decoder.h"
#include "trainer/recipe/recipe.h"
#include "trainer/run/loader.h"
#include "trainer/run/validation.h"

namespace plural::trainer {

// The folders that model.path and adapter.init_from mean, which may be names of the Hub (files/hub_cache.h);
// "" where the key is not set.
std::string ModelFolder(const Recipe& recipe);
std::string AdapterFolder(const Recipe& recipe);

// The shape alone: cheap, so that everything can be checked before weights are read.
ModelConfig ConfigOf(const Recipe& recipe);

// The base model: random weights, or room for those of model.path, which are still to be loaded
// (files/load_model.h). Looks first at the folders of what AddTrained adds. Errors: ExitError(kBadRecipe)
// when the adapter of adapter.init_from has another rank, alpha or other targets than the recipe, other
// latents, or latents that the method does not train.
Decoder MakeBase(const Recipe& recipe, const ModelConfig& config, at::Device device);
// Adds to a base with its weights what the recipe trains; that requires a gradient. Latents of the folder
// that the run starts from go on; without, cvf starts with new ones. Errors: those of hf_folder.h.
void AddTrained(const Recipe& recipe, Decoder& model);

// What the learning rate of each trainable parameter is multiplied by: cvf.new_lr_multiplier for the latents'
// own, 1 for the others.
std::vector<double> LearningRateScales(const Recipe& recipe, const Decoder& model);

// The corpus that `key` of the recipe names. Errors: ExitError(kMissingInput) that says where the recipe
// names it and what makes it; those of Corpus.
data::Corpus OpenCorpusOf(const Recipe& recipe, const std::string& key, const std::string& path,
                          const data::CorpusLimits& limits = {});

// Reads lengths of every group, and for distribution matching every group, once. Returns warnings.
// Errors: data::DataError or ExitError(kBadData) when the corpus has another tokenizer than the model, ids
// beyond its vocabulary, sequences beyond its positions, too few possibility numbers or responses, or
// targets that are not prefix-free.
std::vector<std::string> CheckCorpus(data::Corpus& corpus, const Recipe& recipe, const ModelConfig& config);
// What train and dry-run check of data.train, and of data.validation beside it: CheckCorpus, whether their
// prompts are those that the run goes on with, and a warm-up that ends before the run. `warnings` gets what
// may be meant. Errors: those of CheckCorpus, OtherTemplate and RequireWarmupWithin.
void CheckTrainingCorpus(data::Corpus& corpus, const Recipe& recipe, const ModelConfig& config,
                         std::vector<std::string>& warnings);
void CheckValidationCorpus(data::Corpus& validation, const data::Corpus& train, const Recipe& recipe,
                           const ModelConfig& config, std::vector<std::string>& warnings);

Loader::Settings LoaderSettings(const Recipe& recipe, const ModelConfig& config, at::Device device,
                                const dist::World& world);
Validation::Settings ValidationSettings(const Recipe& recipe, const ModelConfig& config, at::Device device);

// Errors: ExitError(kBadRecipe) where the learning rate would still rise at the end of the run.
void RequireWarmupWithin(const Recipe& recipe, std::int64_t groups);

}  // namespace plural::trainer
