#include "trainer/commands/generate.h"

#include <ATen/Parallel.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "data/corpus.h"
#include "dist/agreement.h"
#include "dist/ordered.h"
#include "trainer/base/error.h"
#include "trainer/base/file_io.h"
#include "trainer/commands/model_options.h"
#include "trainer/files/corpus_fit.h"
#include "trainer/files/hf_folder.h"
#include "trainer/files/load_model.h"
#include "trainer/generate/answer_json.h"
#include "trainer/generate/streaming.h"
#include "trainer/kernels/dtypes.h"
#include "trainer/run/progress.h"

namespace plural::trainer {
namespace {

// What the papers draw a prompt. Others than these keep every token (top_k 0).
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
           " gives one response a latent; leave out --responses, or say --latents sample");
  }
}

GenerateSettings MakeSettings(const GenerateOptions& options) {
  GenerateSettings settings = PresetSettings(options.preset);
  settings.responses = options.responses.value_or(settings.responses);
  settings.max_new_tokens =
      options.max_new_tokens.value_or(DefaultNewTokens(options.method, settings.max_new_tokens));
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
  CheckMethodOptions(options.method, settings, options.temperature || options.top_k || options.top_p);
  return settings;
}

void CheckInputs(const GenerateOptions& options) {
  if (!options.stream) {
    if (options.corpus.empty()) Refuse("--corpus is required: the corpus whose prompts are answered");
    if (options.output.empty()) Refuse("--output is required: the file of answers");
    return;
  }
  if (!options.output.empty()) Refuse("--stream answers on standard output; leave out --output");
  if (options.limit > 0) Refuse("--stream answers every request; leave out --limit");
  if (options.possibilities != "none") {
    Refuse("--stream: requests name their tails themselves; leave out --possibilities");
  }
  if (!Samples(options.method)) Refuse("--stream answers with --method sample, without --rerank");
}

// An adapter that was trained with latents knows no numbers.
void CheckLatents(const Decoder& model, const GenerateSettings& settings) {
  if (model.LatentHeads() != nullptr && settings.policy != PossibilityPolicy::kNone) {
    throw ExitError(
        ExitCode::kBadData,
        "--possibilities: the adapter was trained with method cvf, which knows latents instead of "
        "possibility numbers; ask for --latents all");
  }
}

std::string AnswerLine(const data::Corpus& corpus, const data::Group& prompt, std::string method,
                       const GeneratedPrompt& answer) {
  std::replace(method.begin(), method.end(), '-', '_');
  nlohmann::json line = {
      {"id", prompt.id}, {"prompt", corpus.Decode(prompt.prompt_tokens)}, {"method", std::move(method)}};
  line.update(AnswerJson(answer, &corpus));
  return line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

int RunStream(const GenerateOptions& options, GenerateSettings settings, const dist::World& world) {
  std::optional<data::Corpus> vocabulary;
  if (!options.corpus.empty()) vocabulary = OpenCorpus(options.corpus, world);
  const Decoder model =
      LoadModel(options.model, options.adapter, DTypeNamed(options.dtype), at::Device(at::kCPU));
  if (vocabulary) CheckCorpusFitsModel(*vocabulary, model.Config(), options.model);
  // Without the option requests name latents themselves.
  if (settings.latent_policy != LatentPolicy::kNone) ResolveLatents(model, settings);
  AnswerStream(model, settings, options.batch_rows, vocabulary ? &*vocabulary : nullptr, STDIN_FILENO,
               std::cout);
  return 0;
}

}  // namespace

void AddGenerateOptions(CLI::App& command, GenerateOptions& options) {
  command.add_option("--model", options.model, "Hugging Face folder of the model")->required();
  command.add_option("--adapter", options.adapter, "Folder of a LoRA adapter for it");
  command.add_option(
      "--corpus", options.corpus,
      "Corpus whose prompts are answered; with --stream only its vocabulary is used, to add texts");
  command.add_option("-o,--output", options.output, "JSON lines, one a prompt");
  command.add_flag("--stream", options.stream,
                   "Answer requests, JSON lines of token ids on standard input, on standard output at once");
  AddMethodOptions(command, options.method);
  command
      .add_option("--preset", options.preset,
                  "Defaults of an experiment: dialogue (5 responses, temperature 1, top-k 50, 64 tokens) or "
                  "distribution (1000 responses, temperature 1, top-k 0, 64 tokens)")
      ->check(CLI::IsMember({"dialogue", "distribution"}));
  command.add_option("--responses", options.responses, "Responses a prompt (5)")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 20));
  command
      .add_option("--max-new-tokens", options.max_new_tokens, "Tokens a response at most (64; a list 1024)")
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
  AddComputeOptions(command, options.dtype, options.threads);
}

int RunGenerate(const GenerateOptions& options, dist::World& world, dist::Collectives& collectives) {
  GenerateSettings settings = MakeOnEveryRank(world, collectives, [&] {
    CheckInputs(options);
    return MakeSettings(options);
  });
  SetThreads(options.threads, world);
  if (options.stream) {
    if (world.Size() == 1) return RunStream(options, settings, world);
    FailTogether(world, collectives,
                 ExitError(ExitCode::kUsage, "--stream answers on one rank; start it without mpirun"));
  }
  std::optional<PendingFile> output;
  if (world.Rank() == 0) output.emplace(options.output);

  std::optional<data::Corpus> opened;
  std::optional<Decoder> loaded;
  std::optional<ResponseMethod> method;
  OnEveryRank(world, collectives, [&] {
    opened = OpenCorpus(options.corpus, world);
    if (options.method.rerank > 0) RequireBaseKept(options.adapter, "--rerank");
  });
  loaded = LoadModel(options.model, options.adapter, DTypeNamed(options.dtype), at::Device(at::kCPU), world,
                     collectives);
  OnEveryRank(world, collectives, [&] {
    CheckCorpusFitsModel(*opened, loaded->Config(), options.model);
    CheckLatents(*loaded, settings);
    ResolveLatents(*loaded, settings);
    method.emplace(options.method, settings, options.batch_rows, *loaded, *opened, options.model, world);
  });
  data::Corpus& corpus = *opened;

  const std::int64_t prompts =
      options.limit > 0 ? std::min(options.limit, corpus.Info().groups) : corpus.Info().groups;
  const std::int64_t share = std::max<std::int64_t>(1, (prompts + world.Size() - 1) / world.Size());
  const std::int64_t block = std::min(method->PromptsPerCall(), share);
  const std::int64_t round = block * world.Size();
  std::vector<double> short_prompts = {0.0};
  Progress progress("generate", "prompts", prompts, world.Rank() == 0, 0, std::cerr);
  for (std::int64_t first = 0; first < prompts; first += round) {
    const std::int64_t begin = std::min(prompts, first + block * world.Rank());
    const std::int64_t end = std::min(prompts, begin + block);
    std::vector<data::Group> batch;
    for (std::int64_t p = begin; p < end; ++p) batch.push_back(corpus.Read(p));
    const std::vector<GeneratedPrompt> answers = method->Answer(batch);
    std::vector<std::string> mine(1);  // the block's lines
    for (std::size_t p = 0; p < batch.size(); ++p) {
      short_prompts[0] += answers[p].short_by.value_or(0) > 0 ? 1.0 : 0.0;
      mine[0] += AnswerLine(corpus, batch[p], options.method.method, answers[p]);
    }
    for (const std::string& lines : dist::GatherInOrder(mine, collectives)) {
      if (output) output->Write(lines);
    }
    progress.Update(std::min(prompts, first + round));
  }
  collectives.AllReduceSum(short_prompts);
  if (output && short_prompts[0] > 0.0) {
    std::cerr << "plural: warning: " << static_cast<std::int64_t>(short_prompts[0]) << " of " << prompts
              << " prompts have fewer than " << settings.responses << " responses (short_by)\n";
  }
  if (output) output->Commit();
  return 0;
}

}  // namespace plural::trainer
