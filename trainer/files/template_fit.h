// Whether the prompts of a corpus are those that a model was trained with.
//
// Owns: the comparison of two prompt templates. Does not own: templates (the text side makes and reads them),
// what training records of them (model_card.h). Thread rule: pure; files.
#pragma once

#include <filesystem>
#include <string>

#include "data/corpus.h"

namespace plural::trainer {

// A warning that names both templates where they have other texts; "" where they are the same, or where
// either is not known. A template's name and description do not count.
std::string OtherTemplate(const data::Corpus& validation, const data::Corpus& train);
// The same of the prompts that `folder` was trained on. Errors: those of ReadTraining.
std::string OtherTemplate(const data::Corpus& corpus, const std::filesystem::path& folder);

}  // namespace plural::trainer
