#include "trainer/commands/generate_methods.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <stdexcept>
#include <utility>

#include "data/error.h"
#include "trainer/base/error.h"
#include "trainer/commands/model_options.h"
#include "trainer/files/corpus_fit.h"
#include "trainer/generate/list_prompting.h"

namespace plural::trainer {
namespace {

constexpr const char* kSample = "sample";
constexpr const char* kDiverseBeam = "diverse-beam";
constexpr const char* kList = "list";
constexpr std::int64_t kListTokens = 1024;
constexpr std::int64_t kRefills = 8;

DiverseBeamSettings BeamSettings(const MethodOptions& options, const GenerateSettings& settings) {
  DiverseBeamSettings beams;
  beams.beams = options.beams.value_or(settings.responses);
  beams.groups = options.beam_groups.value_or(beams.beams);
  beams.diversity_penalty = options.diversity_penalty.value_or(beams.diversity_penalty);
  beams.max_new_tokens = settings.max_new_tokens;
  return beams;
}

[[noreturn]] void Refuse(const std::string& why) { throw ExitError(ExitCode::kUsage, why); }

void CheckBeams(const MethodOptions& options, const GenerateSettings& settings) {
  const DiverseBeamSettings beams = BeamSettings(options, settings);
  if (beams.groups > beams.beams || beams.beams % beams.groups != 0) {
    Refuse("--beams " + std::to_string(beams.beams) + " cannot be split into --beam-groups " +
           std::to_string(beams.groups) + " of equal size; give a number of groups that divides the beams");
  }
  if (settings.responses > beams.beams) {
    Refuse("--responses " + std::to_string(settings.responses) + " of --beams " +
           std::to_string(beams.beams) + ": a search gives no more responses than it has beams");
  }
}

void CheckKept(const MethodOptions& options, const GenerateSettings& settings) {
  if (options.rerank <= settings.responses) return;
  Refuse("--rerank " + std::to_string(options.rerank) + " of " + std::to_string(settings.responses) +
         " responses: fewer candidates than are kept; ask for more");
}

}  // namespace

void AddMethodOptions(CLI::App& command, MethodOptions& options) {
  command
      .add_option("--method", options.method,
                  "How responses come about: sample, diverse-beam (search in groups that avoid each other's "
                  "tokens) or list (one greedy list of all responses; needs a corpus that asks for one)")
      ->check(CLI::IsMember({kSample, kDiverseBeam, kList}))
      ->capture_default_str();
  command.add_option("--beams", options.beams, "diverse-beam: beams of all groups (as many as responses)")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 16));
  command.add_option("--beam-groups", options.beam_groups, "diverse-beam: groups of beams (one a beam)")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 16));
  command
      .add_option(
          "--diversity-penalty", options.diversity_penalty,
          "diverse-beam: taken from a token's score for each beam of earlier groups that chose it (5)")
      ->check(CLI::Range(0.0, 1e6));
  command
      .add_option("--rerank", options.rerank,
                  "Keep only so many responses, those that the model without its adapter rates best; 0: all")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command.add_option("--rating-corpus", options.rating_corpus,
                     "Corpus of the same prompts, prepared with a template that asks for ratings");
}

std::int64_t DefaultNewTokens(const MethodOptions& options, std::int64_t otherwise) {
  return options.method == kList ? kListTokens : otherwise;
}

void CheckMethodOptions(const MethodOptions& options, const GenerateSettings& settings, bool samples) {
  if (options.method == kDiverseBeam) {
    CheckBeams(options, settings);
  } else if (options.beams || options.beam_groups || options.diversity_penalty) {
    Refuse("--beams, --beam-groups and --diversity-penalty belong to --method diverse-beam, not " +
           options.method);
  }
  if (options.method != kSample) {
    if (samples) {
      Refuse("--temperature, --top-k and --top-p belong to --method sample, not " + options.method);
    }
    if (settings.latent_policy != LatentPolicy::kNone) {
      Refuse("--latents belongs to --method sample, not " + options.method);
    }
    if (settings.policy != PossibilityPolicy::kNone) {
      Refuse("--possibilities belongs to --method sample, not " + options.method +
             "; leave it out: the prompt is asked without a number");
    }
  }
  if ((options.rerank > 0) != !options.rating_corpus.empty()) {
    Refuse("--rerank and --rating-corpus need each other");
  }
  if (options.rerank == 0) return;
  if (options.method == kList) Refuse("--rerank rates token ids, which items of --method list may share");
  // How many candidates all latents give is known with the model only.
  if (settings.latent_policy != LatentPolicy::kAll) CheckKept(options, settings);
}

bool Samples(const MethodOptions& options) { return options.method == kSample && options.rerank == 0; }

ResponseMethod::ResponseMethod(const MethodOptions& options, const GenerateSettings& settings,
                               std::int64_t rows, const Decoder& model, const data::Corpus& corpus,
                               const std::string& model_folder, const dist::World& world)
    : options_(options),
      settings_(settings),
      rows_(rows),
      beams_(BeamSettings(options, settings)),
      model_(model),
      corpus_(corpus) {
  if (options.rerank == 0) return;
  CheckKept(options, settings);
  ratings_.emplace(OpenCorpus(options.rating_corpus, world));
  CheckCorpusFitsModel(ratings_->Corpus(), model.Config(), model_folder);
  if (ratings_->Corpus().Info().tokenizer_sha256 != corpus.Info().tokenizer_sha256) {
    throw data::DataError(options.rating_corpus + ": prepared with another tokenizer than " +
                          corpus.Path().string() + "; prepare both with the model's");
  }
  base_ = model.WithoutAdapter();
}

std::int64_t ResponseMethod::PromptsPerCall() const {
  if (options_.method == kList) return rows_;
  if (options_.method == kDiverseBeam) return std::max<std::int64_t>(1, rows_ / beams_.beams);
  // Rows that end make room for the next prompt of the call: several times what is decoded at once, so that
  // they are seldom left empty at its end.
  return std::max<std::int64_t>(1, kRefills * rows_ / settings_.responses);
}

std::vector<GeneratedPrompt> ResponseMethod::Answer(const std::vector<data::Group>& prompts) {
  std::vector<GeneratedPrompt> answers;
  if (options_.method == kSample) {
    answers = Generate(model_, prompts, settings_, rows_);
  } else if (options_.method == kDiverseBeam) {
    answers = GenerateDiverseBeams(model_, prompts, beams_);
    for (GeneratedPrompt& answer : answers) {
      answer.responses.resize(static_cast<std::size_t>(settings_.responses));
    }
  } else if (options_.method == kList) {
    answers = GenerateLists(model_, corpus_, prompts, settings_);
  } else {
    throw std::logic_error("no code answers by the method " + options_.method);
  }
  for (std::size_t p = 0; ratings_ && p < answers.size(); ++p) {
    Rerank(*base_, ratings_->Question(prompts[p].id), options_.rerank, answers[p]);
  }
  return answers;
}

}  // namespace plural::trainer
