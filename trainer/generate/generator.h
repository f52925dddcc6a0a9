// The generator: responses to prompts.
//
// Owns: which possibility numbers a prompt's responses get, which draw a token takes, when a response
// ends, how responses of several prompts share decode steps. Does not own: the cache, files, ranks.
// Thread rule: one thread.
#pragma once

#include <cstdint>
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
  int possibility = 0;              // 0: none
  std::vector<data::Token> tokens;  // without the end-of-sequence token
  double logprob = 0.0;             // nats, of the model's own distribution, end-of-sequence token included
  bool finished = false;            // false: cut at max_new_tokens
};

// The responses to each prompt, in order. A pure function of (model, prompts, settings): draws are
// keyed by (seed, prompt id, response index, token index), so neither ranks nor batches change them.
// Errors: DataError naming the prompt when it does not fit the model's context or has too few numbers.
std::vector<std::vector<GeneratedResponse>> Generate(const Decoder& model,
                                                     const std::vector<data::Group>& prompts,
                                                     const GenerateSettings& settings);

}  // namespace plural::trainer
