#include "trainer/commands/generate.h"

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "data/corpus.h"
#include "data/error.h"
#include "data/sha256.h"
#include "dist/agreement.h"
#include "dist/ordered.h"
#include "trainer/base/error.h"
#include "trainer/base/json_io.h"
#include "trainer/base/kept_lines.h"
#include "trainer/base/readable.h"
#include "trainer/base/signals.h"
#include "trainer/base/version.h"
#include "trainer/commands/compute_device.h"
#include "trainer/commands/model_options.h"
#include "trainer/commands/output_file.h"
#include "trainer/files/corpus_fit.h"
#include "trainer/files/hf_folder.h"
#include "trainer/files/load_model.h"
#include "trainer/files/model_card.h"
#include "trainer/files/template_fit.h"
#include "trainer/generate/answer_json.h"
#include "trainer/generate/answerer.h"
#include "trainer/generate/streaming.h"
#include "trainer/kernels/dtypes.h"
#include "trainer/run/progress.h"

namespace plural::trainer {
namespace {

using nlohmann::json;

// An adapter that was trained with latents knows no numbers.
void CheckLatents(const Decoder& model, const GenerateSettings& settings) {
  if (model.LatentHeads() != nullptr && settings.policy != PossibilityPolicy::kNone) {
    throw ExitError(
        ExitCode::kBadData,
        "--possibilities: the adapter was trained with method cvf, which knows latents instead of "
        "possibility numbers; ask for --latents all");
  }
}

// Asked in another way than it was trained, a model gives other answers than it could. plural.json, beside
// weights that were trained here, says how they were.
void WarnOfNumbers(const GenerateOptions& options, const GenerateSettings& settings) {
  const std::filesystem::path folder = options.adapter.empty() ? options.model : options.adapter;
  const std::optional<Training> told = ReadTraining(folder);
  const std::int64_t numbers = told ? told->possibilities : 0;
  const bool trained = numbers > 0;
  const bool asked = settings.policy != PossibilityPolicy::kNone;
  if (trained && !asked && StrategyOf(options) == DecodingStrategy::kSample) {
    std::cerr << "plural: warning: " << folder.string() << " was trained with possibility numbers 1 to "
              << numbers << " and is asked without one, which gives less different answers; add "
              << "--possibilities sample, or first\n";
  } else if (asked && !trained && (told || options.adapter.empty())) {
    std::cerr << "plural: warning: " << folder.string()
              << (told ? " was not trained with" : " does not say that it was trained with")
              << " possibility numbers" << (options.adapter.empty() ? " (no --adapter is given)" : "")
              << ": they may be plain text to it; leave --possibilities out, or give the adapter\n";
  }
}

std::string AnswerLine(const data::Corpus& corpus, const data::Group& prompt, std::string method,
                       const GeneratedPrompt& answer) {
  std::replace(method.begin(), method.end(), '-', '_');
  json line = {{"id", prompt.id},
               {"prompt", corpus.Decode(prompt.prompt_tokens)},
               {"prompt_tokens", prompt.prompt_tokens},
               {"method", std::move(method)}};
  line.update(AnswerJson(answer, &corpus));
  // What the model read is the prompt and a tail of it.
  for (std::size_t i = 0; i < answer.responses.size(); ++i) {
    const GeneratedResponse& response = answer.responses[i];
    const auto number = static_cast<std::size_t>(response.tail.value_or(response.possibility));
    const std::vector<data::Token>& tail = prompt.tails.at(number);
    line["responses"][i]["tail"] = corpus.Decode(tail);
    line["responses"][i]["tail_tokens"] = tail;
  }
  return line.dump(-1, ' ', false, json::error_handler_t::replace) + "\n";
}

// The text of a token of the corpus's tokenizer, or an id; -1 for anything else.
std::int64_t IdOf(const std::string& token, const data::Corpus* corpus) {
  std::int64_t id = corpus == nullptr ? -1 : corpus->IdOf(token);
  if (id >= 0) return id;
  const char* const end = token.data() + token.size();
  const auto [after, error] = std::from_chars(token.data(), end, id);
  return error == std::errc{} && after == end ? id : -1;
}

// What ends an answer: what model and corpus say, or --eos in its place. Errors: ExitError(kUsage).
void SetEnds(const GenerateOptions& options, const data::Corpus* corpus, Decoder& model) {
  if (options.eos.empty()) {
    if (corpus != nullptr) model.AddEndTokens(corpus->Info().end_tokens);
    return;
  }
  std::vector<std::int64_t> ends;
  for (const std::string& token : options.eos) {
    ends.push_back(IdOf(token, corpus));
    if (ends.back() >= 0 && ends.back() < model.Config().vocab_size) continue;
    throw ExitError(ExitCode::kUsage,
                    "--eos '" + token + "': found no such token" +
                        (corpus == nullptr ? " (without --corpus ids alone are known)" : "") +
                        "; give the text of one of the tokenizer's tokens, or an id below " +
                        std::to_string(model.Config().vocab_size));
  }
  model.SetEndTokens(std::move(ends));
}

// Opens the rating corpus where responses are re-ranked.
std::unique_ptr<Answerer> MakeAnswerer(const GenerateOptions& options, const GenerateSettings& settings,
                                       const Decoder& model, const data::Corpus& corpus,
                                       const dist::World& world) {
  std::unique_ptr<Answerer> answerer;
  switch (StrategyOf(options)) {
    case DecodingStrategy::kSample:
      answerer = MakeSampling(model, settings, options.batch_rows);
      break;
    case DecodingStrategy::kDiverseBeam:
      answerer = MakeDiverseBeams(model, BeamsOf(options, settings), settings.responses, options.batch_rows);
      break;
    case DecodingStrategy::kList:
      answerer = MakeListPrompting(model, corpus, settings, options.batch_rows);
      break;
  }
  if (options.rerank == 0) return answerer;
  CheckKept(options, settings);
  RatingCorpus ratings(OpenCorpus(options.rating_corpus, world));
  CheckCorpusFitsModel(ratings.Corpus(), model.Config(), options.model);
  if (ratings.Corpus().Info().tokenizer_sha256 != corpus.Info().tokenizer_sha256) {
    throw data::DataError(options.rating_corpus + ": prepared with another tokenizer than " +
                          corpus.Path().string() + "; prepare both with the model's");
  }
  return MakeReranking(std::move(answerer), model.WithoutAdapter(), std::move(ratings), options.rerank);
}

int RunStream(const GenerateOptions& options, GenerateSettings settings, at::Device device,
              const dist::World& world) {
  std::optional<data::Corpus> vocabulary;
  if (!options.corpus.empty()) vocabulary = OpenCorpus(options.corpus, world);
  Decoder model = LoadModel(options.model, options.adapter, DTypeNamed(options.compute.dtype), device,
                            FullLinearsFor(options.compute.quantize));
  RequireDeviceGenerates(model);
  if (vocabulary) CheckCorpusFitsModel(*vocabulary, model.Config(), options.model);
  SetEnds(options, vocabulary ? &*vocabulary : nullptr, model);
  // Without the option requests name latents themselves.
  if (settings.latent_policy != LatentPolicy::kNone) ResolveLatents(model, settings);
  AnswerStream(model, settings, options.batch_rows, vocabulary ? &*vocabulary : nullptr, STDIN_FILENO,
               std::cout);
  return 0;
}

// Everything that decides the file of answers: not --batch and --threads.
std::string IdentityOf(const GenerateOptions& options, const GenerateSettings& settings,
                       const data::Corpus& corpus, at::Device device) {
  const auto number = [](const auto& option) { return option ? json(*option) : json(); };
  const json identity = {
      {"plural", Version()},
      {"corpus", corpus.Info().sha256.empty() ? corpus.Fingerprint() : corpus.Info().sha256},
      {"model", StampOf(options.model)},
      {"adapter", options.adapter.empty() ? json() : StampOf(options.adapter)},
      {"method",
       {options.method, number(options.beams), number(options.beam_groups),
        number(options.diversity_penalty)}},
      {"rerank", {options.rerank, options.rerank > 0 ? StampOf(options.rating_corpus) : json()}},
      {"asked", {options.limit, options.possibilities, options.latents, options.eos, settings.responses}},
      {"tokens", {settings.min_new_tokens, settings.max_new_tokens}},
      {"sampling",
       {settings.sampling.temperature, settings.sampling.top_k, settings.sampling.top_p, options.seed}},
      {"computed", ComputedWith(options.compute, device)}};
  return "plural generate " +
         data::Sha256OfBytes(identity.dump(-1, ' ', false, json::error_handler_t::replace));
}

// How many of the answers of an earlier start are short. Errors: ExitError(kBadData) for a damaged line.
double CountShort(const std::vector<std::string>& lines, const std::string& output) {
  double found = 0.0;
  for (const std::string& line : lines) {
    found += ParseJson(line, output + ".partial").value("short_by", 0) > 0 ? 1.0 : 0.0;
  }
  return found;
}

// What a start has done.
struct Outcome {
  std::int64_t kept = 0;       // prompts with a line, of this start and earlier ones; of rank 0
  double short_prompts = 0.0;  // of rank 0: those that have fewer responses than asked for
  bool stopped = false;
};

// Answers prompts [begun, prompts). Ranks take blocks of prompts in turn; `output`, of rank 0, gets their
// lines in order. COLLECTIVE.
Outcome AnswerPrompts(const GenerateOptions& options, std::int64_t begun, std::int64_t prompts,
                      data::Corpus& corpus, Answerer& answerer, const StopSignal& stop, KeptLines* output,
                      const dist::World& world, dist::Collectives& collectives) {
  const std::int64_t share = std::max<std::int64_t>(1, (prompts + world.Size() - 1) / world.Size());
  const std::int64_t block = std::min(answerer.PromptsAtOnce(), share);
  Outcome outcome{.kept = begun};
  Progress progress("generate", "prompts", prompts, world.Rank() == 0, begun, std::cerr);
  progress.Update(begun);
  std::vector<double> short_prompts = {0.0};
  for (std::int64_t first = begun; first < prompts && !outcome.stopped; first += block * world.Size()) {
    const std::int64_t begin = std::min(prompts, first + block * world.Rank());
    std::vector<data::Group> batch;
    for (std::int64_t p = begin; p < std::min(prompts, begin + block); ++p) batch.push_back(corpus.Read(p));
    answerer.Ask(batch);
    std::string lines;  // of the block, that are not written yet
    std::size_t done = 0;
    while (done < batch.size()) {
      const std::vector<GeneratedPrompt> answers = answerer.Next(stop);
      if (answers.empty()) break;  // stopped
      for (const GeneratedPrompt& answer : answers) {
        short_prompts[0] += answer.short_by.value_or(0) > 0 ? 1.0 : 0.0;
        const std::string line = AnswerLine(corpus, batch[done++], options.method, answer);
        if (output != nullptr) {  // the first block comes first: it need not wait for the others
          output->Write(line);
          progress.Update(++outcome.kept);
        } else {
          lines += line;
        }
      }
    }
    // Blocks in their order, up to the first that is not whole.
    for (const std::string& told : collectives.AllGather((done == batch.size() ? "+" : "-") + lines)) {
      if (outcome.stopped) break;
      if (output != nullptr) output->Write(std::string_view(told).substr(1));
      outcome.kept += std::count(told.begin(), told.end(), '\n');
      outcome.stopped = told[0] == '-';
    }
    progress.Update(outcome.kept);
  }
  collectives.AllReduceSum(short_prompts);
  outcome.short_prompts = short_prompts[0];
  return outcome;
}

}  // namespace

int RunGenerate(const GenerateOptions& given, dist::World& world, dist::Collectives& collectives) {
  GenerateSettings settings = MakeOnEveryRank(world, collectives, [&] { return SettingsOf(given); });
  const GenerateOptions options = WithFolders(given, world, collectives);
  if (options.stream && world.Size() > 1) {
    FailTogether(world, collectives,
                 ExitError(ExitCode::kUsage, "--stream answers on one rank; start it without mpirun"));
  }
  SetThreads(options.compute.threads, world);
  const at::Device device = OpenDevice(options.compute, world, collectives);
  if (options.stream) return RunStream(options, settings, device, world);
  const StopSignal stop;
  std::optional<KeptLines> output;  // rank 0
  std::optional<data::Corpus> opened;
  std::optional<Decoder> loaded;
  std::unique_ptr<Answerer> answerer;
  OnEveryRank(world, collectives, [&] {
    if (world.Rank() == 0) {
      RequireNewOutput(options.output, options.force);
      WarnOfNumbers(options, settings);
    }
    opened = OpenCorpus(options.corpus, world);
    if (options.rerank > 0) RequireBaseKept(options.adapter, "--rerank");
    if (world.Rank() == 0) output.emplace(options.output, IdentityOf(options, settings, *opened, device));
  });
  loaded = LoadModel(options.model, options.adapter, DTypeNamed(options.compute.dtype), device, world,
                     collectives, FullLinearsFor(options.compute.quantize));
  OnEveryRank(world, collectives, [&] {
    RequireDeviceGenerates(*loaded);
    CheckCorpusFitsModel(*opened, loaded->Config(), options.model);
    SetEnds(options, &*opened, *loaded);
    CheckLatents(*loaded, settings);
    ResolveLatents(*loaded, settings);
    const std::string other =
        OtherTemplate(*opened, options.adapter.empty() ? options.model : options.adapter);
    if (world.Rank() == 0 && !other.empty()) std::cerr << "plural: warning: " << other << "\n";
    answerer = MakeAnswerer(options, settings, *loaded, *opened, world);
  });
  const data::Corpus& corpus = *opened;

  const std::int64_t prompts =
      options.limit > 0 ? std::min(options.limit, corpus.Info().groups) : corpus.Info().groups;
  std::vector<double> found = {0.0, 0.0};  // prompts that an earlier start answered, those that are short
  OnEveryRank(world, collectives, [&] {
    if (!output || output->Found().empty()) return;
    found = {static_cast<double>(output->Found().size()), CountShort(output->Found(), options.output)};
    std::cerr << "plural: goes on behind " << output->Found().size()
              << " answered prompts of an earlier start\n";
  });
  collectives.AllReduceSum(found);
  const Outcome outcome = AnswerPrompts(options, static_cast<std::int64_t>(found[0]), prompts, *opened,
                                        *answerer, stop, output ? &*output : nullptr, world, collectives);
  if (!output) return static_cast<int>(outcome.stopped ? ExitCode::kStopped : ExitCode::kDone);
  if (outcome.stopped) {
    std::cerr << "plural: " << KeptLine(outcome.kept, prompts, "prompts", options.output) << std::endl;
    return static_cast<int>(ExitCode::kStopped);
  }
  const auto short_prompts = static_cast<std::int64_t>(found[1] + outcome.short_prompts);
  if (short_prompts > 0) {
    std::cerr << "plural: warning: " << short_prompts << " of " << prompts << " prompts have fewer than "
              << settings.responses << " responses (short_by)\n";
  }
  output->Commit();
  std::cerr << "plural: " << Counted(prompts, "prompt") << " answered, in " << options.output << std::endl;
  return 0;
}

}  // namespace plural::trainer
