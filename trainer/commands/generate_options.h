// The options of `plural generate`.
//
// Owns: the options, their presets and defaults, which of them exclude each other, the settings that they
// make. Does not own: what is checked against a model or a corpus, decoding (generate/), the run
// (generate.h). Thread rule: main thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "trainer/commands/model_options.h"
#include "trainer/generate/diverse_beam_search.h"
#include "trainer/generate/generator.h"

namespace CLI {
class App;
}

namespace plural::trainer {

// What --method names.
enum class DecodingStrategy : std::uint8_t { kSample, kDiverseBeam, kList };

struct GenerateOptions {
  std::string model, adapter, corpus, output;
  std::string method = "sample";  // sample | diverse-beam | list
  std::optional<std::int64_t> beams, beam_groups;
  std::optional<double> diversity_penalty;
  std::int64_t rerank = 0;  // responses kept; 0: all, unrated
  std::string rating_corpus;
  std::string preset;  // the papers' settings, for what is not given below
  std::optional<std::int64_t> responses, max_new_tokens, top_k;
  std::optional<double> temperature, top_p;
  std::string possibilities = "none";
  std::string latents;           // empty: none
  std::vector<std::string> eos;  // end tokens in place of the model's and the corpus's
  std::int64_t min_new_tokens = 0;
  bool force = false;  // replace the output
  bool stream = false;
  std::uint64_t seed = 42;
  std::int64_t limit = 0;  // prompts; 0: all
  std::int64_t batch_rows = kDefaultRows;
  ComputeOptions compute;
};

void AddGenerateOptions(CLI::App& command, GenerateOptions& options);

DecodingStrategy StrategyOf(const GenerateOptions& options);

// Errors: ExitError(kUsage) for options that are missing or cannot be meant together.
GenerateSettings SettingsOf(const GenerateOptions& options);
DiverseBeamSettings BeamsOf(const GenerateOptions& options, const GenerateSettings& settings);

// Errors: ExitError(kUsage) when --rerank keeps more responses than there are candidates. How many all
// latents give is known with the model only.
void CheckKept(const GenerateOptions& options, const GenerateSettings& settings);

}  // namespace plural::trainer
