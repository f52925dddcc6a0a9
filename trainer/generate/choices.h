// Choices: which possibility number or latent each response of a prompt is asked with.
//
// Owns: the policies and their draws. Does not own: decoding. Thread rule: pure functions.
#pragma once

#include <cstdint>
#include <vector>

#include "data/group.h"
#include "trainer/model/decoder.h"

namespace plural::trainer {

struct GenerateSettings;

enum class PossibilityPolicy : std::uint8_t {
  kNone,    // the prompt without a number
  kFirst,   // response i gets number i + 1
  kSample,  // drawn without replacement by (seed, prompt id)
  kGiven,   // the numbers of the settings, in turn
};

enum class LatentPolicy : std::uint8_t {
  kNone,
  kAll,     // every latent in turn, one response each
  kSample,  // drawn without replacement by (seed, prompt id)
  kGiven,   // the latents of the settings, one response each
};

struct Choices {
  std::vector<int> possibilities;  // per response; 0: none
  std::vector<int> latents;        // per response; 0: none
  std::int64_t Responses() const { return static_cast<std::int64_t>(possibilities.size()); }
};

// What a model's latents make of the settings: kAll becomes kGiven, and kGiven decides how many responses
// there are. Errors: ExitError(kBadData) when the model has no latents or too few, or has some and none is
// asked for.
void ResolveLatents(const Decoder& model, GenerateSettings& settings);

// Errors: those of ResolveLatents; DataError naming the prompt when the corpus has too few numbers, or the
// prompt and its new tokens do not fit the model's context.
Choices Choose(const data::Group& prompt, const GenerateSettings& settings, const Decoder& model);

}  // namespace plural::trainer
