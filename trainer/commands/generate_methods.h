// The methods of `plural generate`, and re-ranking behind them.
//
// Owns: the options of methods that do not just sample, which options exclude each other, which code answers.
// Does not own: the methods (generate/), the output (generate.h). Thread rule: main thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "data/corpus.h"
#include "dist/world.h"
#include "trainer/generate/diverse_beam_search.h"
#include "trainer/generate/generator.h"
#include "trainer/generate/rerank.h"

namespace CLI {
class App;
}

namespace plural::trainer {

struct MethodOptions {
  std::string method = "sample";  // sample | diverse-beam | list
  std::optional<std::int64_t> beams, beam_groups;
  std::optional<double> diversity_penalty;
  std::int64_t rerank = 0;  // responses kept; 0: all, unrated
  std::string rating_corpus;
};

void AddMethodOptions(CLI::App& command, MethodOptions& options);

// Tokens at most of a response, or of a list of them, where the command line does not say.
std::int64_t DefaultNewTokens(const MethodOptions& options, std::int64_t otherwise);

// Errors: ExitError(kUsage) for options that cannot be meant together. `samples`: options of sampling are
// given.
void CheckMethodOptions(const MethodOptions& options, const GenerateSettings& settings, bool samples);

// Whether responses are sampled and all kept: what a stream of requests can be answered with.
bool Samples(const MethodOptions& options);

class ResponseMethod {
 public:
  // Opens the rating corpus where responses are re-ranked. `model` and `corpus` must outlive it. Errors:
  // those of CheckCorpusFitsModel and RatingCorpus; DataError when the two corpora have different tokenizers.
  // `rows`: sequences decoded side by side.
  ResponseMethod(const MethodOptions& options, const GenerateSettings& settings, std::int64_t rows,
                 const Decoder& model, const data::Corpus& corpus, const std::string& model_folder,
                 const dist::World& world);

  // The answers to some prompts, in their order.
  std::vector<GeneratedPrompt> Answer(const std::vector<data::Group>& prompts);
  // How many prompts to answer in one call.
  std::int64_t PromptsPerCall() const;

 private:
  MethodOptions options_;
  GenerateSettings settings_;
  std::int64_t rows_;
  DiverseBeamSettings beams_;
  const Decoder& model_;
  const data::Corpus& corpus_;
  std::optional<RatingCorpus> ratings_;
  std::optional<Decoder> base_;  // with ratings_
};

}  // namespace plural::trainer
