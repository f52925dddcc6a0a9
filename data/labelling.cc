#include "data/labelling.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "data/error.h"

namespace plural::data {
void Refuse(const Group& group, const std::string& what) {
  throw DataError("group '" + group.id + "' (number " + std::to_string(group.index) +
                  " of the corpus, from 0): " + what);
}

void RequireResponses(const Group& group, int used, int candidates) {
  const int found = static_cast<int>(group.responses.size());
  if (found < used || found == 0) {
    Refuse(group, "has " + std::to_string(found) + " responses, " + std::to_string(std::max(used, 1)) +
                      " are needed; lower group.responses (0 = all that a group has) or take the group "
                      "out of the corpus");
  }
  for (int i = 0; i < candidates; ++i) {
    const Response& response = group.responses[static_cast<std::size_t>(i)];
    if (response.tokens.empty()) {
      Refuse(group, "response " + std::to_string(i) + " has no tokens; prepare the corpus without it");
    }
    if (!std::isfinite(response.weight) || response.weight < 0) {
      Refuse(group, "response " + std::to_string(i) + " has the weight " + std::to_string(response.weight) +
                        "; weights are finite and at least 0");
    }
  }
}

std::vector<NumberedResponse> WithoutNumbers(int count) {
  std::vector<NumberedResponse> used;
  for (int i = 0; i < count; ++i) used.push_back({.response = i});
  return used;
}

SharedTokens PrefixOf(const Group& group, int possibility) {
  if (possibility >= static_cast<int>(group.tails.size())) {
    Refuse(group, "has no tail for possibility number " + std::to_string(possibility) + ", only " +
                      std::to_string(group.tails.size()) + " tails counted from 0; prepare the corpus again");
  }
  const std::vector<Token>& tail = group.tails[static_cast<std::size_t>(possibility)];
  std::vector<Token> prefix;
  prefix.reserve(group.prompt_tokens.size() + tail.size());
  prefix.insert(prefix.end(), group.prompt_tokens.begin(), group.prompt_tokens.end());
  prefix.insert(prefix.end(), tail.begin(), tail.end());
  if (prefix.empty()) {
    Refuse(group,
           "its prompt has no tokens, so nothing predicts the first response token; prepare the corpus "
           "with a begin-of-text token or a prompt template");
  }
  return prefix;
}

LabelledSequence SequenceOf(const Group& group, const NumberedResponse& numbered, SharedTokens prefix) {
  LabelledSequence sequence;
  sequence.prefix = std::move(prefix);
  sequence.response = group.responses[static_cast<std::size_t>(numbered.response)].tokens;
  sequence.likelihood.assign(sequence.response.size(), 0.0);
  sequence.unlikelihood.assign(sequence.response.size(), 0.0);
  sequence.response_index = numbered.response;
  sequence.possibility = numbered.possibility;
  return sequence;
}

LabelledGroup Positives(const Group& group, const std::vector<NumberedResponse>& used,
                        Normalization normalization) {
  LabelledGroup labelled;
  labelled.group = group.index;
  double total = 0.0;
  for (const NumberedResponse& numbered : used) {
    const Response& response = group.responses[static_cast<std::size_t>(numbered.response)];
    const double items =
        normalization == Normalization::kGroupTokenMean ? static_cast<double>(response.tokens.size()) : 1.0;
    total += response.weight * items;
  }
  if (!(total > 0.0) || !std::isfinite(total)) {
    Refuse(group, "the weights of its responses sum to " + std::to_string(total) +
                      ", which must be finite and above 0; give at least one response a weight");
  }
  for (const NumberedResponse& numbered : used) {
    // Without numbers all responses stand after the same tokens.
    const bool same =
        !labelled.sequences.empty() && labelled.sequences.back().possibility == numbered.possibility;
    LabelledSequence sequence = SequenceOf(
        group, numbered, same ? labelled.sequences.back().prefix : PrefixOf(group, numbered.possibility));
    std::ranges::fill(sequence.likelihood,
                      group.responses[static_cast<std::size_t>(numbered.response)].weight / total);
    labelled.positive_tokens += static_cast<std::int64_t>(sequence.response.size());
    labelled.sequences.push_back(std::move(sequence));
  }
  return labelled;
}

}  // namespace plural::data
