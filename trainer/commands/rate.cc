#include "trainer/commands/rate.h"

#include <CLI/CLI.hpp>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "data/sha256.h"
#include "dist/agreement.h"
#include "dist/ordered.h"
#include "trainer/base/error.h"
#include "trainer/base/json_io.h"
#include "trainer/base/json_lines.h"
#include "trainer/base/kept_lines.h"
#include "trainer/base/signals.h"
#include "trainer/base/version.h"
#include "trainer/commands/compute_device.h"
#include "trainer/commands/model_options.h"
#include "trainer/commands/output_file.h"
#include "trainer/files/corpus_fit.h"
#include "trainer/files/load_model.h"
#include "trainer/generate/rerank.h"
#include "trainer/kernels/dtypes.h"
#include "trainer/run/progress.h"

namespace plural::trainer {
namespace {

using nlohmann::json;

// Everything that decides the file of ratings.
std::string IdentityOf(const RateOptions& options, at::Device device) {
  const json identity = {{"plural", Version()},
                         {"model", StampOf(options.model)},
                         {"rating_corpus", StampOf(options.rating_corpus)},
                         {"input", StampOf(options.input)},
                         {"computed", ComputedWith(options.compute, device)}};
  return "plural rate " + data::Sha256OfBytes(identity.dump(-1, ' ', false, json::error_handler_t::replace));
}

struct Counts {
  double responses = 0.0, unrated = 0.0;
};

void CheckAnswer(const json& line, const std::string& where) {
  bool good = line.is_object() && line.contains("id") && line["id"].is_string() &&
              line.contains("responses") && line["responses"].is_array();
  for (std::size_t i = 0; good && i < line["responses"].size(); ++i) good = line["responses"][i].is_object();
  if (good) return;
  throw ExitError(ExitCode::kBadData, where +
                                          ": an object with \"id\" and \"responses\", a list of objects, is "
                                          "needed, as plural generate writes it");
}

// The response's token ids; none where only its text is known.
std::optional<std::vector<data::Token>> TokensOf(const json& response, std::int64_t vocab_size,
                                                 const std::string& where) {
  if (response.contains("tokens") && response["tokens"] == json::array()) {
    if (response.value("text", json("")) == json("")) return std::vector<data::Token>{};
    return std::nullopt;
  }
  const std::vector<std::int64_t> ids = TokenIds(response, "tokens", vocab_size, where);
  return std::vector<data::Token>(ids.begin(), ids.end());
}

// Adds the ratings to an answer.
void RateAnswer(const Decoder& base, RatingCorpus& questions, json& line, const std::string& where,
                Counts& counts) {
  std::vector<std::vector<data::Token>> tokens;
  std::vector<std::size_t> rated;
  json& responses = line["responses"];
  for (std::size_t i = 0; i < responses.size(); ++i) {
    responses[i]["rating"] = responses[i]["mass_below_6"] = nullptr;
    auto ids =
        TokensOf(responses[i], base.Config().vocab_size, where + " responses[" + std::to_string(i) + "]");
    if (!ids) continue;
    tokens.push_back(std::move(*ids));
    rated.push_back(i);
  }
  counts.responses += static_cast<double>(responses.size());
  counts.unrated += static_cast<double>(responses.size() - rated.size());
  if (rated.empty()) return;
  const std::vector<Rating> ratings =
      RateResponses(base, questions.Question(line["id"].get<std::string>()), tokens);
  for (std::size_t i = 0; i < rated.size(); ++i) {
    responses[rated[i]]["rating"] = ratings[i].expected;
    responses[rated[i]]["mass_below_6"] = ratings[i].incoherent_mass;
  }
}

// A line that an earlier start wrote.
void CountRated(const std::string& text, const std::string& output, Counts& counts) {
  const std::string where = output + ".partial";
  const json line = ParseJson(text, where);
  CheckAnswer(line, where);
  for (const json& response : line["responses"]) {
    counts.responses += 1.0;
    counts.unrated += response.value("rating", json()).is_null() ? 1.0 : 0.0;
  }
}

}  // namespace

void AddRateOptions(CLI::App& command, RateOptions& options) {
  command.add_option("--model", options.model, kModelHelp)->required();
  command
      .add_option("--rating-corpus", options.rating_corpus,
                  "Corpus of the same prompts, prepared with a template that asks for ratings")
      ->required();
  command.add_option("--input", options.input, "Answers of plural generate")->required();
  AddOutputOptions(command, options.output, options.force,
                   "The same lines; each response gets \"rating\" (expected, 1 to 10) and \"mass_below_6\"")
      ->required();
  AddComputeOptions(command, options.compute);
}

int RunRate(const RateOptions& given, dist::World& world, dist::Collectives& collectives) {
  const RateOptions options = WithFolders(given, world, collectives);
  const StopSignal stop;
  SetThreads(options.compute.threads, world);
  const at::Device device = OpenDevice(options.compute, world, collectives);
  std::optional<KeptLines> output;  // rank 0
  std::optional<Decoder> base;
  std::optional<RatingCorpus> questions;
  std::optional<JsonLines> input;
  OnEveryRank(world, collectives, [&] {
    input.emplace(options.input);
    if (world.Rank() != 0) return;
    RequireNewOutput(options.output, options.force);
    output.emplace(options.output, IdentityOf(options, device));
  });
  base = LoadModel(options.model, "", DTypeNamed(options.compute.dtype), device, world, collectives,
                   FullLinearsFor(options.compute.quantize));
  OnEveryRank(world, collectives, [&] {
    RequireDeviceServes(*base);
    questions.emplace(OpenCorpus(options.rating_corpus, world));
    CheckCorpusFitsModel(questions->Corpus(), base->Config(), options.model);
  });

  // Every rank reads all lines, which is cheap, and rates its own of each round.
  Counts counts;
  std::vector<double> found = {output ? static_cast<double>(output->Found().size()) : 0.0};
  collectives.AllReduceSum(found);
  auto prompts = static_cast<std::int64_t>(found[0]);
  OnEveryRank(world, collectives, [&] {
    for (std::int64_t p = 0; p < prompts; ++p) {
      json line;
      if (!input->Next(line)) throw ExitError(ExitCode::kBadData, "fewer answers than were rated before");
      if (output) CountRated(output->Found()[static_cast<std::size_t>(p)], options.output, counts);
    }
  });
  if (output && prompts > 0) {
    std::cerr << "plural: goes on behind " << prompts << " rated prompts of an earlier start\n";
  }
  Progress progress("rate", "prompts", 0, world.Rank() == 0, prompts, std::cerr);
  for (bool more = true; more;) {
    std::vector<double> asked = {stop.Requested() ? 1.0 : 0.0};
    collectives.AllReduceMax(asked);
    if (asked[0] > 0.0) {
      if (output) std::cerr << "plural: " << KeptLine(prompts, 0, "prompts", options.output) << std::endl;
      return static_cast<int>(ExitCode::kStopped);
    }
    std::vector<std::string> mine;
    WorkOrDiscard(output ? &*output : nullptr, world, collectives, [&] {
      for (int rank = 0; rank < world.Size() && more; ++rank) {
        json line;
        more = input->Next(line);
        if (!more) break;
        ++prompts;
        CheckAnswer(line, input->Where());
        if (rank != world.Rank()) continue;
        RateAnswer(*base, *questions, line, input->Where(), counts);
        mine.push_back(line.dump(-1, ' ', false, json::error_handler_t::replace) + "\n");
      }
    });
    for (const std::string& rated : dist::GatherInOrder(mine, collectives)) {
      if (output) output->Write(rated);
    }
    progress.Update(prompts);
  }

  std::vector<double> sums = {counts.responses, counts.unrated};
  collectives.AllReduceSum(sums);
  if (sums[0] == 0.0) {
    if (output) output->Discard();
    FailTogether(
        world, collectives,
        ExitError(ExitCode::kBadData,
                  "'" + options.input + "' holds no responses; give a file written by plural generate"));
  }
  if (output && sums[1] > 0.0) {
    std::cerr << "plural: warning: " << static_cast<std::int64_t>(sums[1]) << " of "
              << static_cast<std::int64_t>(sums[0])
              << " responses have a text but no token ids, and so no rating\n";
  }
  if (output) output->Commit();
  return 0;
}

}  // namespace plural::trainer
