#include "trainer/commands/generate.h"

#include <ATen/Parallel.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>

#include "data/corpus.h"
#include "trainer/agreement.h"
#include "trainer/commands/model_options.h"
#include "trainer/error.h"
#include "trainer/file_io.h"
#include "trainer/model/load_model.h"
#include "trainer/progress.h"

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

// "none", "first", "sample" or numbers such as "1,4".
void ParsePossibilities(const std::string& text, GenerateSettings& settings) {
  if (text == "none") {
    settings.policy = PossibilityPolicy::kNone;
  } else if (text == "first") {
    settings.policy = PossibilityPolicy::kFirst;
  } else if (text == "sample") {
    settings.policy = PossibilityPolicy::kSample;
  } else {
    settings.policy = PossibilityPolicy::kGiven;
    const char* next = text.data();
    const char* const end = next + text.size();
    while (true) {
      int number = 0;
      const auto [after, error] = std::from_chars(next, end, number);
      if (error != std::errc{} || number < 1 || (after != end && *after != ',')) {
        throw ExitError(ExitCode::kUsage, "--possibilities '" + text +
                                              "': allowed are none, first, sample, or numbers from 1 "
                                              "separated by commas, such as 1,4");
      }
      settings.possibilities.push_back(number);
      if (after == end) return;
      next = after + 1;
    }
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
  ParsePossibilities(options.possibilities, settings);
  CheckMethodOptions(options.method, settings, options.temperature || options.top_k || options.top_p);
  return settings;
}

nlohmann::json ToJson(const data::Corpus& corpus, const GeneratedResponse& response) {
  nlohmann::json item = {{"index", response.index},
                         {"possibility", response.possibility},
                         {"latent", response.latent},
                         {"text", response.text ? *response.text : corpus.Decode(response.tokens)},
                         {"tokens", response.tokens},
                         {"logprob_nats", response.logprob},  // null where it is not known
                         {"finished", response.finished},
                         {"steps", response.steps},
                         {"seconds", response.seconds}};
  if (response.score) item["score"] = *response.score;
  if (response.rating) item["rating"] = *response.rating;
  return item;
}

nlohmann::json ToJson(const data::Corpus& corpus, const data::Group& prompt, const std::string& method,
                      const GeneratedPrompt& answer) {
  nlohmann::json line = {{"id", prompt.id},
                         {"prompt", corpus.Decode(prompt.prompt_tokens)},
                         {"responses", nlohmann::json::array()},
                         {"method", method},
                         {"decode_steps", answer.decode_steps},
                         {"token_forwards", answer.token_forwards},
                         {"seconds", answer.seconds}};
  std::replace(line["method"].get_ref<std::string&>().begin(), line["method"].get_ref<std::string&>().end(),
               '-', '_');
  for (const GeneratedResponse& response : answer.responses) {
    line["responses"].push_back(ToJson(corpus, response));
  }
  if (answer.short_by) line["short_by"] = *answer.short_by;
  return line;
}

}  // namespace

void AddGenerateOptions(CLI::App& command, GenerateOptions& options) {
  command.add_option("--model", options.model, "Hugging Face folder of the model")->required();
  command.add_option("--adapter", options.adapter, "Folder of a LoRA adapter for it");
  command.add_option("--corpus", options.corpus, "Corpus whose prompts are answered")->required();
  command.add_option("-o,--output", options.output, "JSON lines, one a prompt")->required();
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
  command.add_option("--seed", options.seed, "Key of every draw")->capture_default_str();
  command.add_option("--limit", options.limit, "Answer only the first so many prompts; 0: all")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command.add_option("--batch", options.batch_responses, "Responses decoded together")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 20))
      ->capture_default_str();
  AddComputeOptions(command, options.dtype, options.threads);
}

int RunGenerate(const GenerateOptions& options, dist::World& world, dist::Collectives& collectives) {
  const GenerateSettings settings = MakeSettings(options);
  SetThreads(options.threads, world);
  std::optional<PendingFile> output;
  if (world.Rank() == 0) output.emplace(options.output);

  std::optional<data::Corpus> opened;
  std::optional<Decoder> loaded;
  std::optional<ResponseMethod> method;
  OnEveryRank(world, collectives, [&] {
    opened = OpenCorpus(options.corpus, world);
    loaded = LoadModel(options.model, options.adapter, ParseDType(options.dtype), at::Device(at::kCPU));
    CheckCorpusFitsModel(*opened, loaded->Config(), options.model);
    method.emplace(options.method, settings, *loaded, *opened, options.model, world);
  });
  data::Corpus& corpus = *opened;

  const std::int64_t prompts =
      options.limit > 0 ? std::min(options.limit, corpus.Info().groups) : corpus.Info().groups;
  const std::int64_t block = std::max<std::int64_t>(1, options.batch_responses / method->RowsPerPrompt());
  const std::int64_t round = block * world.Size();
  std::vector<double> short_prompts = {0.0};
  Progress progress("generate", "prompts", prompts, world.Rank() == 0, 0, std::cerr);
  for (std::int64_t first = 0; first < prompts; first += round) {
    const std::int64_t begin = std::min(prompts, first + block * world.Rank());
    const std::int64_t end = std::min(prompts, begin + block);
    std::vector<data::Group> batch;
    for (std::int64_t p = begin; p < end; ++p) batch.push_back(corpus.Read(p));
    const std::vector<GeneratedPrompt> answers = method->Answer(batch);
    std::string lines;
    for (std::size_t p = 0; p < batch.size(); ++p) {
      short_prompts[0] += answers[p].short_by.value_or(0) > 0 ? 1.0 : 0.0;
      lines += ToJson(corpus, batch[p], options.method.method, answers[p])
                   .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) +
               "\n";
    }
    for (const std::string& part : collectives.AllGather(lines)) {
      if (output) output->Write(part);
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
