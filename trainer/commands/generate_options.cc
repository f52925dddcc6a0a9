#include "trainer/commands/generate_options.h"

#include <CLI/CLI.hpp>
#include <charconv>
#include <stdexcept>
#include <vector>

#include "trainer/base/error.h"
#include "trainer/commands/model_options.h"
#include "trainer/commands/output_file.h"

namespace plural::trainer {
namespace {

constexpr std::int64_t kListTokens = 1024;

// What the papers draw per prompt. What is not among these keeps every token (top_k 0).
GenerateSettings PresetSettings(const std::string& preset) {
  if (preset == "dialogue") {
    return {.responses = 5, .max_new_tokens = 64, .sampling = {.temperature = 1.0, .top_k = 50}};
  }
  if (preset == "distribution") {
    return {.responses = 1000, .max_new_tokens = 64, .sampling = {.temperature = 1.0, .top_k = 0}};
  }
  return {};
}

[[noreturn]] void Refuse(const std::string& why) { throw ExitError(ExitCode::kUsage, why); }

// "1,4": numbers from 1. `words`: what else is allowed there.
std::vector<int> ParseNumbers(const std::string& option, const std::string& text, const std::string& words) {
  std::vector<int> numbers;
  const char* next = text.data();
  const char* const end = next + text.size();
  while (true) {
    int number = 0;
    const auto [after, error] = std::from_chars(next, end, number);
    if (error != std::errc{} || number < 1 || (after != end && *after != ',')) {
      Refuse(option + " '" + text + "': allowed are " + words +
             ", or numbers from 1 separated by commas, such as 1,4");
    }
    numbers.push_back(number);
    if (after == end) return numbers;
    next = after + 1;
  }
}

void ParsePossibilities(const std::string& text, GenerateSettings& settings) {
  if (text == "none") {
    settings.policy = PossibilityPolicy::kNone;
  } else if (text == "first") {
    settings.policy = PossibilityPolicy::kFirst;
  } else if (text == "sample") {
    settings.policy = PossibilityPolicy::kSample;
  } else {
    settings.policy = PossibilityPolicy::kGiven;
    settings.possibilities = ParseNumbers("--possibilities", text, "none, first, sample");
  }
}

void ParseLatents(const GenerateOptions& options, GenerateSettings& settings) {
  if (options.latents.empty()) return;
  if (options.latents == "all") {
    settings.latent_policy = LatentPolicy::kAll;
  } else if (options.latents == "sample") {
    settings.latent_policy = LatentPolicy::kSample;
  } else {
    settings.latent_policy = LatentPolicy::kGiven;
    settings.latents = ParseNumbers("--latents", options.latents, "all, sample");
    settings.responses = static_cast<std::int64_t>(settings.latents.size());
  }
  if (settings.policy != PossibilityPolicy::kNone) {
    Refuse("--latents and --possibilities: a response is asked with one of the two; leave one out");
  }
  if (settings.latent_policy != LatentPolicy::kSample && options.responses) {
    Refuse("--latents " + options.latents +
           " gives one response per latent; leave out --responses, or say --latents sample");
  }
}

void CheckBeams(const GenerateOptions& options, const GenerateSettings& settings) {
  const DiverseBeamSettings beams = BeamsOf(options, settings);
  if (beams.groups > beams.beams || beams.beams % beams.groups != 0) {
    Refuse("--beams " + std::to_string(beams.beams) + " cannot be split into --beam-groups " +
           std::to_string(beams.groups) + " of equal size; give a number of groups that divides the beams");
  }
  if (settings.responses > beams.beams) {
    Refuse("--responses " + std::to_string(settings.responses) + " of --beams " +
           std::to_string(beams.beams) + ": a search gives no more responses than it has beams");
  }
}

void CheckStrategy(const GenerateOptions& options, const GenerateSettings& settings) {
  const DecodingStrategy strategy = StrategyOf(options);
  if (strategy == DecodingStrategy::kDiverseBeam) {
    CheckBeams(options, settings);
  } else if (options.beams || options.beam_groups || options.diversity_penalty) {
    Refuse("--beams, --beam-groups and --diversity-penalty belong to --method diverse-beam, not " +
           options.method);
  }
  if (strategy != DecodingStrategy::kSample) {
    if (options.temperature || options.top_k || options.top_p) {
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
  if (strategy == DecodingStrategy::kList) {
    Refuse("--rerank rates token ids, which items of --method list may share");
  }
  // How many candidates all latents give is known with the model only.
  if (settings.latent_policy != LatentPolicy::kAll) CheckKept(options, settings);
}

void CheckInputs(const GenerateOptions& options) {
  std::string missing;
  const auto require = [&](const std::string& value, const char* option, const char* what) {
    if (value.empty()) missing += std::string(missing.empty() ? "" : ", ") + option + " (" + what + ")";
  };
  require(options.model, "--model", "the folder of the model");
  if (!options.stream) {
    require(options.corpus, "--corpus", "whose prompts are answered");
    require(options.output, "--output", "the file of answers");
  }
  if (!missing.empty()) Refuse("still needed: " + missing + "; see plural generate --help");
  if (!options.stream) return;
  if (!options.output.empty()) Refuse("--stream answers on standard output; leave out --output");
  if (options.limit > 0) Refuse("--stream answers every request; leave out --limit");
  if (options.possibilities != "none") {
    Refuse("--stream: requests name their tails themselves; leave out --possibilities");
  }
  if (StrategyOf(options) != DecodingStrategy::kSample || options.rerank > 0) {
    Refuse("--stream answers with --method sample, without --rerank");
  }
}

void AddStrategyOptions(CLI::App& command, GenerateOptions& options) {
  command
      .add_option("--method", options.method,
                  "How responses come about: sample, diverse-beam (search in groups that avoid each other's "
                  "tokens) or list (one greedy list of all responses; needs a corpus that asks for one)")
      ->check(CLI::IsMember({"sample", "diverse-beam", "list"}))
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

}  // namespace

void AddGenerateOptions(CLI::App& command, GenerateOptions& options) {
  command.add_option("--model", options.model, kModelHelp);
  command.add_option("--adapter", options.adapter, kAdapterHelp);
  command.add_option(
      "--corpus", options.corpus,
      "Corpus whose prompts are answered; with --stream only its vocabulary is used, to add texts");
  AddOutputOptions(command, options.output, options.force, "JSON lines, one per prompt");
  command.add_flag("--stream", options.stream,
                   "Answer requests, JSON lines of token ids on standard input, on standard output at once");
  AddStrategyOptions(command, options);
  command
      .add_option("--preset", options.preset,
                  "Defaults of an experiment: dialogue (5 responses, temperature 1, top-k 50, 64 tokens) or "
                  "distribution (1000 responses, temperature 1, top-k 0, 64 tokens)")
      ->check(CLI::IsMember({"dialogue", "distribution"}));
  command.add_option("--responses", options.responses, "Responses per prompt (5)")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 20));
  command
      .add_option("--max-new-tokens", options.max_new_tokens, "Tokens per response at most (64; a list 1024)")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 20));
  command.add_option("--temperature", options.temperature, "0 takes the most likely token (1)")
      ->check(CLI::Range(0.0, 100.0));
  command.add_option("--top-k", options.top_k, "Sample from the k most likely; 0: all (0)")
      ->check(CLI::NonNegativeNumber);
  command.add_option("--top-p", options.top_p, "Sample from the smallest set of this mass (1)")
      ->check(CLI::Range(1e-9, 1.0));
  command
      .add_option("--possibilities", options.possibilities,
                  "Possibility numbers: none, first (1..responses), sample (without replacement), or a "
                  "list such as 1,4")
      ->capture_default_str();
  command.add_option(
      "--latents", options.latents,
      "Latents of an adapter of method cvf, one response each: all, sample (as many as responses, "
      "without replacement), or a list such as 1,3");
  command
      .add_option("--eos", options.eos,
                  "End token, by text or id, in place of those that the model and the corpus name; may be "
                  "given several times")
      ->allow_extra_args(false);
  command
      .add_option("--min-new-tokens", options.min_new_tokens, "No response ends before it has so many tokens")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command.add_option("--seed", options.seed, "Key of every draw")->capture_default_str();
  command.add_option("--limit", options.limit, "Answer only the first so many prompts; 0: all")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command.add_option("--batch", options.batch_rows, "Different histories decoded side by side")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 20))
      ->capture_default_str();
  AddComputeOptions(command, options.compute);
}

DecodingStrategy StrategyOf(const GenerateOptions& options) {
  if (options.method == "sample") return DecodingStrategy::kSample;
  if (options.method == "diverse-beam") return DecodingStrategy::kDiverseBeam;
  if (options.method == "list") return DecodingStrategy::kList;
  throw std::logic_error("no decoding strategy is called " + options.method);
}

GenerateSettings SettingsOf(const GenerateOptions& options) {
  CheckInputs(options);
  GenerateSettings settings = PresetSettings(options.preset);
  settings.responses = options.responses.value_or(settings.responses);
  const bool lists = StrategyOf(options) == DecodingStrategy::kList;
  settings.max_new_tokens = options.max_new_tokens.value_or(lists ? kListTokens : settings.max_new_tokens);
  settings.sampling.temperature = options.temperature.value_or(settings.sampling.temperature);
  settings.sampling.top_k = options.top_k.value_or(settings.sampling.top_k);
  settings.sampling.top_p = options.top_p.value_or(settings.sampling.top_p);
  settings.seed = options.seed;
  settings.min_new_tokens = options.min_new_tokens;
  if (settings.min_new_tokens > settings.max_new_tokens) {
    Refuse("--min-new-tokens " + std::to_string(settings.min_new_tokens) + " is more than --max-new-tokens " +
           std::to_string(settings.max_new_tokens));
  }
  ParsePossibilities(options.possibilities, settings);
  ParseLatents(options, settings);
  CheckStrategy(options, settings);
  return settings;
}

DiverseBeamSettings BeamsOf(const GenerateOptions& options, const GenerateSettings& settings) {
  DiverseBeamSettings beams;
  beams.beams = options.beams.value_or(settings.responses);
  beams.groups = options.beam_groups.value_or(beams.beams);
  beams.diversity_penalty = options.diversity_penalty.value_or(beams.diversity_penalty);
  beams.max_new_tokens = settings.max_new_tokens;
  return beams;
}

void CheckKept(const GenerateOptions& options, const GenerateSettings& settings) {
  if (options.rerank <= settings.responses) return;
  Refuse("--rerank " + std::to_string(options.rerank) + " of " + std::to_string(settings.responses) +
         " responses: fewer candidates than are kept; ask for more");
}

}  // namespace plural::trainer
