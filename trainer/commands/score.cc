#include "trainer/commands/score.h"

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "data/rows.h"
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
#include "trainer/files/load_model.h"
#include "trainer/kernels/dtypes.h"
#include "trainer/method/pass_forward.h"
#include "trainer/model/head.h"
#include "trainer/ops/from_device.h"
#include "trainer/plan/cost_model.h"
#include "trainer/run/progress.h"

namespace plural::trainer {
using nlohmann::json;
namespace {

constexpr std::size_t kGroupSequences = 256;  // sequences of one prompt that are cut into trees together
constexpr std::size_t kBlockTokens = 16384;   // a block is closed once it holds so many
constexpr std::size_t kBlockSequences = 1024;

// What an output line says of its sequence, before its figures.
using OutputKeys = nlohmann::ordered_json;

// Lines of one block: groups of consecutive lines with the same prompt.
struct Block {
  std::vector<data::LabelledGroup> groups;
  std::vector<std::vector<OutputKeys>> keys;  // of their output lines, as groups
  std::size_t tokens = 0, sequences = 0;

  bool Full() const { return tokens >= kBlockTokens || sequences >= kBlockSequences; }
  void Add(OutputKeys of_line, std::vector<data::Token> prompt, std::vector<data::Token> response) {
    ++sequences;
    tokens += response.size();
    const bool open = !groups.empty() && groups.back().sequences.size() < kGroupSequences &&
                      *groups.back().sequences.front().prefix == prompt;
    if (!open) {
      tokens += prompt.size();
      groups.emplace_back();
      keys.emplace_back();
    }
    data::LabelledSequence sequence;
    sequence.likelihood.assign(response.size(), 0.0);
    sequence.unlikelihood.assign(response.size(), 0.0);
    sequence.prefix = open ? groups.back().sequences.front().prefix : data::SharedTokens(std::move(prompt));
    sequence.response = std::move(response);
    groups.back().sequences.push_back(std::move(sequence));
    keys.back().push_back(std::move(of_line));
  }
};

class SequenceReader {
 public:
  SequenceReader(const std::string& path, const ModelConfig& config) : lines_(path), config_(config) {}

  // Answers so far that ended at once, or that share their tokens (items of --method list).
  std::int64_t WithoutTokens() const { return without_tokens_; }

  // Empty at the end of the file.
  Block Next() {
    Block block;
    json object;
    while (!block.Full() && lines_.Next(object)) Add(object, block);
    return block;
  }

 private:
  void Add(const json& object, Block& block) {
    const std::string where = lines_.Where();
    if (!object.is_object() || !object.contains("id") ||
        !(object["id"].is_string() || object["id"].is_number())) {
      throw ExitError(ExitCode::kBadData,
                      where +
                          ": an object with \"id\" (string or number), \"prompt_tokens\" and "
                          "\"response_tokens\" is needed, or a line that `plural generate` wrote");
    }
    if (!object.contains("prompt_tokens")) {
      throw ExitError(
          ExitCode::kBadData,
          where +
              ": key 'prompt_tokens' is missing; texts are scored by launch/plural, whole files of them, and "
              "answers of an earlier version are generated again");
    }
    const std::vector<data::Token> prompt = Tokens(object, "prompt_tokens", where);
    if (!object.contains("responses")) {
      AddSequence({{"id", object["id"]}}, prompt, Tokens(object, "response_tokens", where), where, block);
      return;
    }
    if (!object["responses"].is_array() || object["responses"].empty()) {
      throw ExitError(ExitCode::kBadData, where + ": key 'responses' must hold a list that is not empty");
    }
    std::size_t number = 0;
    for (const json& response : object["responses"]) {
      AddAnswer(object["id"], prompt, response, where + ": response " + std::to_string(++number), block);
    }
  }

  // A response of `plural generate`.
  void AddAnswer(const json& id, std::vector<data::Token> prompt, const json& response,
                 const std::string& where, Block& block) {
    const auto number = [&](const char* key) {
      const auto found = response.is_object() ? response.find(key) : response.end();
      return found != response.end() && found->is_number_integer() ? found->get<std::int64_t>() : 0;
    };
    if (!response.is_object() || !response.contains("tokens")) {
      throw ExitError(ExitCode::kBadData, where + ": has no 'tokens', as generate writes them");
    }
    if (response["tokens"].is_array() && response["tokens"].empty()) {
      ++without_tokens_;
      return;
    }
    if (number("latent") != 0) {
      throw ExitError(ExitCode::kBadData,
                      where + ": was asked with a latent of method cvf, which score does not know");
    }
    if (response.contains("tail_tokens") && !response["tail_tokens"].empty()) {
      for (const data::Token token : Tokens(response, "tail_tokens", where)) prompt.push_back(token);
    }
    AddSequence({{"id", id}, {"index", number("index")}, {"possibility", number("possibility")}},
                std::move(prompt), Tokens(response, "tokens", where), where, block);
  }

  std::vector<data::Token> Tokens(const json& object, const char* key, const std::string& where) const {
    const std::vector<std::int64_t> ids = TokenIds(object, key, config_.vocab_size, where);
    return {ids.begin(), ids.end()};
  }

  void AddSequence(OutputKeys keys, std::vector<data::Token> prompt, std::vector<data::Token> response,
                   const std::string& where, Block& block) const {
    const std::size_t length = prompt.size() + response.size();
    if (length > static_cast<std::size_t>(config_.max_position_embeddings)) {
      throw ExitError(ExitCode::kBadData, where + ": " + std::to_string(length) +
                                              " tokens; the model's max_position_embeddings is " +
                                              std::to_string(config_.max_position_embeddings));
    }
    block.Add(std::move(keys), std::move(prompt), std::move(response));
  }

  JsonLines lines_;
  const ModelConfig& config_;
  std::int64_t without_tokens_ = 0;
};

// log p of every edge of the pass, nats.
std::vector<double> EdgeLogP(const Decoder& model, const data::RowPass& pass) {
  const PassEdges edges = EdgesOf(pass, false, model.Device());
  const at::Tensor hidden_SE = HiddenOfSources(model, pass, edges.source, {}).hidden_SE;
  return ReadTogether({EdgeLogProb(hidden_SE, model.Head(), edges.list).log_p})[0];
}

std::string OutputLine(OutputKeys line, const std::vector<double>& token_log_p) {
  double sum = 0.0;
  for (const double value : token_log_p) sum += value;
  if (!std::isfinite(sum)) {
    throw ExitError(ExitCode::kDiverged, "the model gives sequence " + line["id"].dump() +
                                             " a log-probability that is not finite");
  }
  line["logprob"] = sum;
  line["token_logprobs"] = token_log_p;
  return line.dump() + "\n";
}

// The block's output lines, in input order.
std::string ScoreBlock(const Decoder& model, const data::CostModel& cost, const Block& block) {
  data::PackSettings pack;
  pack.cost = cost;
  std::vector<std::vector<std::vector<double>>> log_p(block.groups.size());  // [group][sequence][token]
  for (std::size_t g = 0; g < log_p.size(); ++g) log_p[g].resize(block.groups[g].sequences.size());
  for (const data::RowPass& pass : data::PackGroups(block.groups, pack, 1.0)) {
    const std::vector<double> edge_log_p = EdgeLogP(model, pass);
    for (std::size_t s = 0; s < pass.sequences.size(); ++s) {
      const auto [group, sequence] = pass.sequences[s];
      std::vector<double>& tokens =
          log_p[static_cast<std::size_t>(group)][static_cast<std::size_t>(sequence)];
      for (std::int32_t i = pass.path_offset[s]; i < pass.path_offset[s + 1]; ++i) {
        tokens.push_back(edge_log_p[static_cast<std::size_t>(pass.path[static_cast<std::size_t>(i)])]);
      }
    }
  }
  std::string lines;
  for (std::size_t g = 0; g < log_p.size(); ++g) {
    for (std::size_t s = 0; s < log_p[g].size(); ++s) lines += OutputLine(block.keys[g][s], log_p[g][s]);
  }
  return lines;
}

// `lines` without the first `count`.
std::string WithoutLines(std::string lines, std::int64_t count) {
  std::size_t begin = 0;
  for (; count > 0; --count) begin = lines.find('\n', begin) + 1;
  return lines.substr(begin);
}

// Whether the output is there and holds what this command writes: the same input gives the same scores again,
// so nothing is lost where they are replaced. A warning says so.
bool AreScores(const std::filesystem::path& output) {
  std::ifstream file(output);
  std::string first;
  if (!std::getline(file, first)) return false;
  const json line = json::parse(first, nullptr, /*allow_exceptions=*/false);
  if (!line.is_object() || !line.contains("token_logprobs")) return false;
  std::cerr << "plural: warning: " << output.string() << ": holds scores, which are made anew\n";
  return true;
}

// Everything that decides the file of scores. The input counts by its content: of texts it is a file of token
// ids that every start makes anew.
std::string IdentityOf(const ScoreOptions& options, at::Device device) {
  const json identity = {{"plural", Version()},
                         {"model", StampOf(options.model)},
                         {"adapter", options.adapter.empty() ? json() : StampOf(options.adapter)},
                         {"input", data::Sha256OfFile(options.input)},
                         {"computed", ComputedWith(options.compute, device)}};
  return "plural score " + data::Sha256OfBytes(identity.dump(-1, ' ', false, json::error_handler_t::replace));
}

}  // namespace

void AddScoreOptions(CLI::App& command, ScoreOptions& options) {
  command.add_option("--model", options.model, kModelHelp)->required();
  command.add_option("--adapter", options.adapter, kAdapterHelp);
  command
      .add_option("--input", options.input,
                  "JSON lines {\"id\", \"prompt_tokens\": [...], \"response_tokens\": [...]}, answers of "
                  "`plural generate`, or texts {\"id\", \"prompt\", \"response\"} (\"messages\" or "
                  "\"question\" for \"prompt\"; --tokenizer DIR_OR_FILE where it is not the model's)")
      ->required();
  AddOutputOptions(command, options.output, options.force,
                   "JSON lines {\"id\", \"logprob\", \"token_logprobs\"}, in nats, in input order")
      ->required();
  AddComputeOptions(command, options.compute);
}

int RunScore(const ScoreOptions& given, dist::World& world, dist::Collectives& collectives) {
  const ScoreOptions options = WithFolders(given, world, collectives);
  const StopSignal stop;
  SetThreads(options.compute.threads, world);
  const at::Device device = OpenDevice(options.compute, world, collectives);
  const c10::NoGradGuard no_grad;
  std::optional<KeptLines> output;  // rank 0
  OnEveryRank(world, collectives, [&] {
    JsonLines readable(options.input);
    if (world.Rank() != 0) return;
    RequireNewOutput(options.output, options.force || AreScores(options.output));
    output.emplace(options.output, IdentityOf(options, device));
  });
  const Decoder model = LoadModel(options.model, options.adapter, DTypeNamed(options.compute.dtype), device,
                                  world, collectives, FullLinearsFor(options.compute.quantize));
  WarnOfLatents(model, world);
  const data::CostModel cost = CostOf(model.Config(), /*train_all_weights=*/false,
                                      ElementBytes(options.compute.dtype), model.Device());
  std::optional<SequenceReader> reader;
  std::vector<double> found = {output ? static_cast<double>(output->Found().size()) : 0.0};
  collectives.AllReduceSum(found);
  const auto begun = static_cast<std::int64_t>(found[0]);  // sequences that an earlier start scored
  OnEveryRank(world, collectives, [&] {
    RequireDeviceServes(model);
    reader.emplace(options.input, model.Config());
  });
  if (output && begun > 0) {
    std::cerr << "plural: goes on behind " << begun << " scored sequences of an earlier start\n";
  }

  // Every rank reads all lines, which is cheap, and scores its own block of each round. Blocks are the same
  // in every start, since the last digits of a figure depend on what is computed beside it.
  Progress progress("score", "sequences", 0, world.Rank() == 0, begun, std::cerr);
  std::int64_t read = 0;
  for (bool more = true; more;) {
    std::vector<double> asked = {stop.Requested() ? 1.0 : 0.0};
    collectives.AllReduceMax(asked);
    if (asked[0] > 0.0) {
      const std::int64_t kept = std::max(begun, read);
      if (output) std::cerr << "plural: " << KeptLine(kept, 0, "sequences", options.output) << std::endl;
      return static_cast<int>(ExitCode::kStopped);
    }
    std::vector<std::string> mine;
    WorkOrDiscard(output ? &*output : nullptr, world, collectives, [&] {
      for (int rank = 0; rank < world.Size() && more; ++rank) {
        const Block block = reader->Next();
        more = block.sequences > 0;
        const auto end = read + static_cast<std::int64_t>(block.sequences);
        if (rank == world.Rank()) {
          mine.push_back(end <= begun ? "" : WithoutLines(ScoreBlock(model, cost, block), begun - read));
        }
        read = end;
      }
    });
    for (const std::string& lines : dist::GatherInOrder(mine, collectives)) {
      if (output) output->Write(lines);
    }
    progress.Update(std::max(begun, read));
  }
  if (output && reader->WithoutTokens() > 0) {
    std::cerr << "plural: warning: answers without token ids of their own get no line: "
              << reader->WithoutTokens() << "\n";
  }
  if (output) output->Commit();
  return 0;
}

}  // namespace plural::trainer
