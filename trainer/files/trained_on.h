// What an adapter or model was trained on, as far as it decides how it is to be asked: plural.json beside its
// weights.
//
// Owns: the file, the comparison of two prompt templates. Does not own: templates (the text side makes and
// reads them). Thread rule: pure; files.
#pragma once

#include <filesystem>
#include <string>

#include "data/corpus.h"

namespace plural::trainer {

// The text of plural.json for a run on this corpus; "" where its prompts have no template.
std::string TrainedOnJson(const data::Corpus& corpus);
// Writes it into a folder that is being made; nothing for "".
void WriteTrainedOn(const std::string& trained_on, const std::filesystem::path& folder);
// The file's text; "" where `folder` has none.
std::string ReadTrainedOn(const std::filesystem::path& folder);

// A warning that names both templates where they have other texts; "" where they are the same, or where
// either is not known. A template's name and description do not count.
std::string OtherTemplate(const data::Corpus& validation, const data::Corpus& train);
// The same of the prompts that `folder` was trained on. Errors: ExitError(kBadData) for a plural.json that is
// no JSON or has values of other types.
std::string OtherTemplate(const data::Corpus& corpus, const std::filesystem::path& folder);

}  // namespace plural::trainer
