// The generator: responses to prompts.
//
// Owns: which possibility numbers a prompt's responses get, which draw a token takes, when a response
// ends, how responses of several prompts share decode steps. Does not own: the cache, files, ranks.
// Thread rule: one thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "trainer/generate/key_value_cache.h"
#include "trainer/generate/sampler.h"

namespace plural::trainer {

enum class PossibilityPolicy : std::uint8_t {
  kNone,    // the prompt without a number
  kFirst,   // response i gets number i + 1
  kSample,  // drawn without replacement by (seed, prompt id)
  kGiven,   // the numbers of the settings, in turn
};

struct GenerateSettings {
  std::int64_t responses = 5;
  std::int64_t max_new_tokens = 64;
  SamplingSettings sampling{};
  PossibilityPolicy policy = PossibilityPolicy::kNone;
  std::vector<int> possibilities{};  // kGiven
  std::uint64_t seed = 42;
};

struct GeneratedResponse {
  std::int64_t index = 0;
  int possibility = 0;                // 0: none
  int latent = 0;                     // 0: none, else 1..K
  std::vector<data::Token> tokens;    // without the end-of-sequence token
  std::optional<std::string> text{};  // where `tokens` do not spell it
  double logprob = 0.0;               // nats, of the model's own distribution, end-of-sequence token included
  bool finished = false;              // false: cut at max_new_tokens
  std::int64_t steps = 0;             // decode steps it took part in
  double seconds = 0.0;               // from the start of its prompt's prefill to its own end
  std::optional<double> score{};      // of methods that search: what the responses are ordered by
  std::optional<double> rating{};     // expected rating 1..10 where responses were rated
};

// What a prompt got, and what it cost.
struct GeneratedPrompt {
  std::vector<GeneratedResponse> responses;
  std::int64_t decode_steps = 0;    // one after the other, from the first to the last of its responses
  std::int64_t token_forwards = 0;  // tokens run through the model for it, prefill included
  double seconds = 0.0;
  std::optional<std::int64_t> short_by{};  // of methods that may fall short: responses missing
};

// The responses to each prompt, in order. A pure function of (model, prompts, settings): draws are
// keyed by (seed, prompt id, response index, token index), so neither ranks nor batches change them.
// Errors: DataError naming the prompt when it does not fit the model's context or has too few numbers.
std::vector<GeneratedPrompt> Generate(const Decoder& model, const std::vector<data::Group>& prompts,
                                      const GenerateSettings& settings);

}  // namespace plural::trainer
