// List prompting: one decoding gives all responses to a prompt, as the items of a list.
//
// Owns: what counts as an item of a list, the retries of lists that are too short. Does not own: decoding
// (generator.h), the wording of prompts (a template of the corpus). Thread rule: one thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "data/corpus.h"
#include "trainer/generate/generator.h"

namespace plural::trainer {

// Bytes [begin, end) of a text: an item without its label and without space around it.
struct ListItem {
  std::size_t begin = 0, end = 0;
  bool operator==(const ListItem&) const = default;
};

// The items of a list, one per line. Labels are "1.", "2)", "(3)", "4:", "#5", "- ", "* ", a bullet sign, or
// a word and a number such as "Response 1:". Where any line has a label, lines without one (a heading, an
// afterword) are no items; `first_is_item`: but for the first line, whose label ends the prompt. Items
// shorter than 5 characters are left out.
std::vector<ListItem> SplitList(std::string_view text, bool first_is_item);

// Whether a prompt ends with the label of the list's first item.
bool EndsWithLabel(std::string_view prompt);

// The tokens [begin, end), given by their texts, that spell an item and, beside it, white space only;
// none where an item shares a token with its surroundings.
struct TokenSpan {
  std::size_t begin = 0, end = 0;
};
std::optional<TokenSpan> TokensOfItem(const std::vector<std::string>& token_texts, const ListItem& item);

// Whether the numbers of a corpus are how many responses a list is asked for (prompt_with_count of its
// template), and not possibility numbers.
bool AsksForCount(const data::CorpusInfo& info);

// The first `settings.responses` items of a list for each prompt of `corpus`. The list is decoded greedily,
// at most `settings.max_new_tokens` tokens; where it has too few items, two more are sampled, one after the
// other, at temperature 1 with draws keyed by (seed, attempt, prompt id, token), and the longest list wins,
// the earliest of equals. What is missing then is told in `short_by`. An item has its own tokens where
// TokensOfItem finds them, else none; `text` is set; its log-probability is not known (NaN). Costs count all
// attempts. A corpus that AsksForCount is asked for `settings.responses`. Empty when `stop` is requested
// before all are done. Errors: as Generate; data::DataError for more than it has numbers.
std::vector<GeneratedPrompt> GenerateLists(const Decoder& model, const data::Corpus& corpus,
                                           const std::vector<data::Group>& prompts,
                                           const GenerateSettings& settings,
                                           const StopSignal* stop = nullptr);

}  // namespace plural::trainer
