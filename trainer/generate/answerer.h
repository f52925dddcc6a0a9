// Answerers: the ways to answer prompts, behind one interface.
//
// Owns: how many prompts a way answers at once, re-ranking behind another way. Does not own: the ways
// themselves (generator.h, diverse_beam_search.h, list_prompting.h), ratings (rerank.h), which way is asked
// for. Thread rule: one thread.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "data/corpus.h"
#include "trainer/base/signals.h"
#include "trainer/generate/diverse_beam_search.h"
#include "trainer/generate/generator.h"
#include "trainer/generate/rerank.h"
#include "trainer/model/decoder.h"

namespace plural::trainer {

class Answerer {
 public:
  virtual ~Answerer() = default;

  // How many prompts to ask at once, at least one.
  virtual std::int64_t PromptsAtOnce() const = 0;
  // Puts prompts at the end of those that are to be answered. No answer depends on the prompts beside its
  // own.
  virtual void Ask(std::vector<data::Group> prompts) = 0;
  // The next answers in the order of asking, as soon as there are some. Empty when all have been given, or
  // when `stop` is requested.
  virtual std::vector<GeneratedPrompt> Next(const StopSignal& stop) = 0;
};

// `rows`: sequences decoded side by side. `model` and `corpus` must outlive what is made. Errors of answers:
// those of Generate, GenerateDiverseBeams and GenerateLists.

// Samples, with possibility numbers or latents where the settings ask for them.
std::unique_ptr<Answerer> MakeSampling(const Decoder& model, const GenerateSettings& settings,
                                       std::int64_t rows);
// The best `responses` hypotheses of a diverse beam search; at most as many as its beams.
std::unique_ptr<Answerer> MakeDiverseBeams(const Decoder& model, const DiverseBeamSettings& beams,
                                           std::int64_t responses, std::int64_t rows);
// The items of one list per prompt. `corpus`: its vocabulary spells them.
std::unique_ptr<Answerer> MakeListPrompting(const Decoder& model, const data::Corpus& corpus,
                                            const GenerateSettings& settings, std::int64_t rows);
// The `keep` best of another way's responses. `base`: the model without its adapter. Errors of answers: also
// those of RatingCorpus::Question and Rerank.
std::unique_ptr<Answerer> MakeReranking(std::unique_ptr<Answerer> candidates, Decoder base,
                                        RatingCorpus ratings, std::int64_t keep);

}  // namespace plural::trainer
