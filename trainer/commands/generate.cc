#include "trainer/commands/generate.h"

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
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
#include "trainer/base/version.h"
#include "trainer/commands/model_options.h"
#include "trainer/files/corpus_fit.h"
#include "trainer/files/hf_folder.h"
#include "trainer/files/load_model.h"
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

std::string AnswerLine(const data::Corpus& corpus, const data::Group& prompt, std::string method,
                       const GeneratedPrompt& answer) {
  std::replace(method.begin(), method.end(), '-', '_');
  json line = {{"id", prompt.id},
               {"prompt", corpus.Decode(prompt.prompt_tokens)},
               {"prompt_tokens", prompt.prompt_tokens},
               {"method", std::move(method)}};
  line.update(AnswerJson(answer, &corpus));
  // What the model read is the prompt and the tail of the response's number.
  for (std::size_t i = 0; i < answer.responses.size(); ++i) {
    const auto number = static_cast<std::size_t>(answer.responses[i].possibility);
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

int RunStream(const GenerateOptions& options, GenerateSettings settings, const dist::World& world) {
  std::optional<data::Corpus> vocabulary;
  if (!options.corpus.empty()) vocabulary = OpenCorpus(options.corpus, world);
  Decoder model = LoadModel(options.model, options.adapter, DTypeNamed(options.dtype), at::Device(at::kCPU));
  if (vocabulary) CheckCorpusFitsModel(*vocabulary, model.Config(), options.model);
  SetEnds(options, vocabulary ? &*vocabulary : nullptr, model);
  // Without the option requests name latents themselves.
  if (settings.latent_policy != LatentPolicy::kNone) ResolveLatents(model, settings);
  AnswerStream(model, settings, options.batch_rows, vocabulary ? &*vocabulary : nullptr, STDIN_FILENO,
               std::cout);
  return 0;
}

// Size and age of a file: hashing all weights would take longer than many an answer.
json FileOf(const std::filesystem::path& file) {
  std::error_code error;
  const auto age = std::filesystem::last_write_time(file, error).time_since_epoch().count();
  return {file.string(), std::filesystem::file_size(file, error), age};
}

json FilesOf(const std::string& folder) {
  std::set<std::filesystem::path> files;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    if (entry.is_regular_file(error)) files.insert(entry.path());
  }
  json shown = json::array();
  for (const auto& file : files) shown.push_back(FileOf(file));
  return shown;
}

// Everything that decides the file of answers: not --batch and --threads.
std::string IdentityOf(const GenerateOptions& options, const GenerateSettings& settings,
                       const data::Corpus& corpus) {
  const auto number = [](const auto& option) { return option ? json(*option) : json(); };
  const json identity = {
      {"plural", Version()},
      {"corpus", corpus.Info().sha256.empty() ? corpus.Fingerprint() : corpus.Info().sha256},
      {"model", FilesOf(options.model)},
      {"adapter", options.adapter.empty() ? json() : FilesOf(options.adapter)},
      {"method",
       {options.method, number(options.beams), number(options.beam_groups),
        number(options.diversity_penalty)}},
      {"rerank", {options.rerank, options.rerank > 0 ? FileOf(options.rating_corpus) : json()}},
      {"asked", {options.limit, options.possibilities, options.latents, options.eos, settings.responses}},
      {"tokens", {settings.min_new_tokens, settings.max_new_tokens}},
      {"sampling",
       {settings.sampling.temperature, settings.sampling.top_k, settings.sampling.top_p, options.seed}},
      {"dtype", options.dtype}};
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

}  // namespace

int RunGenerate(const GenerateOptions& options, dist::World& world, dist::Collectives& collectives) {
  GenerateSettings settings = MakeOnEveryRank(world, collectives, [&] { return SettingsOf(options); });
  SetThreads(options.threads, world);
  if (options.stream) {
    if (world.Size() == 1) return RunStream(options, settings, world);
    FailTogether(world, collectives,
                 ExitError(ExitCode::kUsage, "--stream answers on one rank; start it without mpirun"));
  }
  std::optional<KeptLines> output;  // rank 0
  std::optional<data::Corpus> opened;
  std::optional<Decoder> loaded;
  std::unique_ptr<Answerer> answerer;
  OnEveryRank(world, collectives, [&] {
    opened = OpenCorpus(options.corpus, world);
    if (options.rerank > 0) RequireBaseKept(options.adapter, "--rerank");
    if (world.Rank() == 0) output.emplace(options.output, IdentityOf(options, settings, *opened));
  });
  loaded = LoadModel(options.model, options.adapter, DTypeNamed(options.dtype), at::Device(at::kCPU), world,
                     collectives);
  OnEveryRank(world, collectives, [&] {
    CheckCorpusFitsModel(*opened, loaded->Config(), options.model);
    SetEnds(options, &*opened, *loaded);
    CheckLatents(*loaded, settings);
    ResolveLatents(*loaded, settings);
    answerer = MakeAnswerer(options, settings, *loaded, *opened, world);
  });
  data::Corpus& corpus = *opened;

  const std::int64_t prompts =
      options.limit > 0 ? std::min(options.limit, corpus.Info().groups) : corpus.Info().groups;
  const std::int64_t share = std::max<std::int64_t>(1, (prompts + world.Size() - 1) / world.Size());
  const std::int64_t block = std::min(answerer->PromptsPerCall(), share);
  const std::int64_t round = block * world.Size();
  std::vector<double> short_prompts = {0.0};
  std::vector<double> found = {0.0};  // prompts that an earlier start answered
  OnEveryRank(world, collectives, [&] {
    if (!output || output->Found().empty()) return;
    found[0] = static_cast<double>(output->Found().size());
    short_prompts[0] = CountShort(output->Found(), options.output);
    std::cerr << "plural: goes on behind " << output->Found().size()
              << " answered prompts of an earlier start\n";
  });
  collectives.AllReduceSum(found);
  const auto begun = static_cast<std::int64_t>(found[0]);
  Progress progress("generate", "prompts", prompts, world.Rank() == 0, begun, std::cerr);
  for (std::int64_t first = begun; first < prompts; first += round) {
    const std::int64_t begin = std::min(prompts, first + block * world.Rank());
    const std::int64_t end = std::min(prompts, begin + block);
    std::vector<data::Group> batch;
    for (std::int64_t p = begin; p < end; ++p) batch.push_back(corpus.Read(p));
    const std::vector<GeneratedPrompt> answers = answerer->Answer(batch);
    std::vector<std::string> mine(1);  // the block's lines
    for (std::size_t p = 0; p < batch.size(); ++p) {
      short_prompts[0] += answers[p].short_by.value_or(0) > 0 ? 1.0 : 0.0;
      mine[0] += AnswerLine(corpus, batch[p], options.method, answers[p]);
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
