// What a trained folder says about how to ask it: plural.json for programs, README.md for people.
//
// Owns: the content of both, and the chat template of a chat corpus beside them. Does not own: weights and
// tokenizer files (hf_folder.h), rendering of prompts for a run, which the corpus holds. Thread rule: pure
// functions, but for ReadTraining, which reads a file, and LicenseOf.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace plural::trainer {

// How a folder's weights were trained, as far as it decides how they are asked.
struct Training {
  std::string method;                      // as a recipe names it
  std::int64_t possibilities = 0;          // prompts with numbers 1 to so many; 0: without
  std::int64_t latents = 0;                // of method cvf; 0: none
  std::vector<std::int64_t> begin_tokens;  // before the text of a prompt; none where the template writes them
  std::string source_format;               // of the corpus: dialogue | targets | chat | text
  std::string template_json;               // the corpus's prompt template
  std::string tokenizer_name, tokenizer_sha256;
  // How it came about, for people: a JSON object of texts, numbers and the object "figures"; "" where that is
  // not known.
  std::string trained_json{};
};

inline constexpr const char* kTrainingFile = "plural.json";

// File name -> content: README.md, plural.json and, of a chat corpus, chat_template.jinja. `base_model`: the
// model that an adapter belongs to; empty: the folder is a model of its own. `end_tokens`: any ends a
// response. Empty where the corpus has no template: another program wrote it.
std::map<std::string, std::string> CardFiles(const Training& training, const std::string& base_model,
                                             const std::vector<std::int64_t>& end_tokens);

// The licence that the README.md of a model's folder names in its metadata; "" where there is none.
std::string LicenseOf(const std::filesystem::path& folder);

// What plural.json of `folder` says; nothing without the file. Errors: those of ReadJsonFile;
// ExitError(kBadData) naming the key of another type.
std::optional<Training> ReadTraining(const std::filesystem::path& folder);

}  // namespace plural::trainer
