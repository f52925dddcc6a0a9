// Random small groups for tests: every shape that a corpus can hold, in sizes that brute force can follow.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "data/random.h"
#include "data/rows.h"
#include "trainer/method/method.h"

namespace plural::data::testing {

struct RandomCase {
  Group group;
  const trainer::Method* method = nullptr;
  LabelSettings settings;
  LabelledGroup labelled;
};

inline constexpr Token kEndToken = 23;  // the largest token id that occurs
inline constexpr int kVocabulary = 24;

// A response without a penalised token.
inline Response ResponseOf(std::vector<Token> tokens, double weight = 1.0) {
  std::vector<std::uint8_t> masks(tokens.size(), 0);
  return {std::move(tokens), weight, std::move(masks)};
}

inline std::vector<Token> RandomTokens(CounterRandom& random, std::size_t length, int alphabet) {
  std::vector<Token> tokens(length);
  for (Token& token : tokens) token = static_cast<Token>(random.Below(static_cast<std::uint64_t>(alphabet)));
  return tokens;
}

// A response that may be new, equal to an earlier one, the beginning of one, or go on from one.
inline std::vector<Token> RandomResponse(CounterRandom& random, const std::vector<Response>& earlier,
                                         int alphabet) {
  std::vector<Token> fresh = RandomTokens(random, 1 + random.Below(5), alphabet);
  if (earlier.empty()) return fresh;
  std::vector<Token> known = earlier[random.Below(earlier.size())].tokens;
  switch (random.Below(6)) {
    case 0:
      return known;
    case 1:
      known.resize(1 + random.Below(known.size()));
      return known;
    case 2:
      known.insert(known.end(), fresh.begin(), fresh.end());
      return known;
    default:
      return fresh;
  }
}

// Prompts may be empty (then sequences with different tails share nothing), numbers take one to three
// tokens, weights may be unequal or 0, masks may be empty, negatives may be a subset.
inline Group RandomGroup(CounterRandom& random, bool prefix_free) {
  Group group;
  group.id = "group-" + std::to_string(random.Next());
  const int alphabet = 2 + static_cast<int>(random.Below(5));
  group.prompt_tokens = RandomTokens(random, random.Below(5), kEndToken);
  group.tails.push_back(RandomTokens(random, group.prompt_tokens.empty() ? 1 : random.Below(3), kEndToken));
  for (int k = 1; k <= 5; ++k) group.tails.push_back(RandomTokens(random, 1 + random.Below(3), alphabet));

  const std::size_t responses = 1 + random.Below(4);
  const bool weighted = random.Below(2) == 0;
  const bool unmasked = random.Below(4) == 0;
  while (group.responses.size() < responses) {
    Response response;
    response.tokens = RandomResponse(random, group.responses, alphabet);
    if (prefix_free) {
      std::erase(response.tokens, kEndToken);
      response.tokens.push_back(kEndToken);
      const auto equal = [&](const Response& other) { return other.tokens == response.tokens; };
      if (std::ranges::any_of(group.responses, equal)) continue;
    }
    if (weighted && !group.responses.empty()) response.weight = static_cast<double>(random.Below(4)) * 0.5;
    for (std::size_t t = 0; t < response.tokens.size(); ++t) {
      response.masks.push_back(unmasked ? 0 : static_cast<std::uint8_t>(random.Below(8)));
    }
    group.responses.push_back(std::move(response));
  }
  return group;
}

// The methods that random cases are made for; their places are part of the draws.
inline constexpr std::string_view kMethods[] = {"pretrain", "otoft", "otmft", "peft",
                                                "distribution_matching"};

// `method`: of kMethods, or cvf.
inline RandomCase MakeRandomCase(std::uint64_t seed, std::string_view method) {
  const auto place = std::ranges::find(kMethods, method) - std::begin(kMethods);
  CounterRandom random{Mix64(seed * 8 + static_cast<std::uint64_t>(place))};
  RandomCase result;
  result.group = RandomGroup(random, method == "distribution_matching");
  result.method = &trainer::MethodNamed(method);
  result.settings = {.responses = 0,
                     .possibilities = 5,
                     .max_negatives = static_cast<int>(random.Below(6)),
                     .unlikelihood_alpha = 0.5,
                     .mask = static_cast<MaskMode>(random.Below(3)),
                     .normalization = static_cast<Normalization>(random.Below(2)),
                     .seed = seed};
  result.labelled = trainer::Label(*result.method, result.group, result.settings,
                                   static_cast<std::int64_t>(random.Below(3)));
  return result;
}

// Up to the last that is predicted.
inline std::vector<Token> Tokens(const LabelledSequence& sequence) {
  std::vector<Token> tokens = *sequence.prefix;
  const auto predicted = static_cast<std::ptrdiff_t>(sequence.PredictedTokens());
  tokens.insert(tokens.end(), sequence.response.begin(), sequence.response.begin() + predicted);
  return tokens;
}

// What the model is asked to predict, and from which tokens.
struct Prediction {
  std::vector<Token> context;
  Token target = 0;
  auto operator<=>(const Prediction&) const = default;
};

struct Weights {
  double likelihood = 0.0;
  double unlikelihood = 0.0;
};

inline Prediction PredictionAt(const LabelledSequence& sequence, std::size_t t) {
  std::vector<Token> context = *sequence.prefix;
  context.insert(context.end(), sequence.response.begin(),
                 sequence.response.begin() + static_cast<std::ptrdiff_t>(t));
  return {std::move(context), sequence.response[t]};
}

// The tokens a flat row sees under the pass's own rule.
inline std::vector<Token> Visible(const RowPass& pass, std::int64_t row) {
  std::vector<Token> tokens;
  const std::int64_t first = row - row % pass.length;  // of its batch row
  for (std::int64_t k = first; k <= row; ++k) {
    const auto at = static_cast<std::size_t>(k);
    if (pass.end.empty() || row < pass.end[at]) tokens.push_back(pass.token[at]);
  }
  return tokens;
}

}  // namespace plural::data::testing
