#include "trainer/commands/evaluate.h"

#include <ATen/core/Tensor.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <iostream>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>

#include "data/corpus.h"
#include "data/rows.h"
#include "dist/agreement.h"
#include "dist/ordered.h"
#include "trainer/base/error.h"
#include "trainer/base/file_io.h"
#include "trainer/base/signals.h"
#include "trainer/commands/compute_device.h"
#include "trainer/commands/model_options.h"
#include "trainer/commands/output_file.h"
#include "trainer/files/corpus_fit.h"
#include "trainer/files/hf_folder.h"
#include "trainer/files/load_model.h"
#include "trainer/kernels/dtypes.h"
#include "trainer/method/evaluation.h"
#include "trainer/plan/cost_model.h"
#include "trainer/run/progress.h"

namespace plural::trainer {
namespace {

// What is asked of each group.
struct Task {
  const Decoder& model;
  std::optional<Decoder> base;  // with compare_base
  bool targets = false;
  bool possibilities = false;
  data::PackSettings pack;
};

nlohmann::json EvaluateLine(const Task& task, const data::Group& group) {
  const GroupFigures figures = EvaluateGroup(task.model, group, task.targets, task.pack);
  nlohmann::json line = {
      {"id", group.id}, {"sequences", figures.sequences}, {"response_tokens", figures.response_tokens}};
  if (figures.targets) {
    line["kl_nats"] = figures.targets->kl_nats;
    line["cross_entropy_nats"] = figures.targets->cross_entropy_nats;
    line["target_entropy_nats"] = figures.targets->target_entropy_nats;
    line["entropy_nats"] = figures.targets->entropy_nats;
    line["target_mass"] = figures.targets->target_mass;
    line["expected_coverage_1000"] = figures.expected_coverage;
  } else {
    line["logprob_nats"] = figures.logprob_nats;
  }
  if (task.base) {
    line["base_logprob_nats"] = EvaluateGroup(*task.base, group, task.targets, task.pack).logprob_nats;
    line["logprob_nats"] = figures.logprob_nats;
    line["kl_from_base_nats"] = TokenKl(*task.base, task.model, group, task.pack);
  }
  if (task.possibilities) {
    if (const auto numbers = EvaluatePossibilities(task.model, group, task.pack)) {
      line["possibility_mixture_entropy_nats"] = numbers->mixture_entropy_nats;
      line["possibility_information_nats"] = numbers->information_nats;
    }
  }
  return line;
}

// Averages over groups and their intervals.
class Averages {
 public:
  explicit Averages(const std::vector<nlohmann::json>& groups) : groups_(groups) {
    summary_ = {{"groups", groups.size()}};
    intervals_ = nlohmann::json::object();
  }

  // Mean of `key` over the groups that have it, under its own name.
  void Mean(const char* key) {
    std::vector<double> values;
    for (const auto& group : groups_) {
      if (group.contains(key)) values.push_back(group[key].get<double>());
    }
    if (!values.empty()) Add(key, values, std::vector<double>(values.size(), 1.0), 1.0);
  }
  // Sum of `key` over the sum of response tokens, times `sign`.
  void PerToken(const char* key, const std::string& name, double sign) {
    Add(name, All(key), All("response_tokens"), sign);
  }
  void Set(const char* name, double value) { summary_[name] = value; }
  double operator[](const char* name) const { return summary_.at(name).get<double>(); }
  bool Has(const char* key) const { return !groups_.empty() && groups_.front().contains(key); }

  nlohmann::json Take() {
    summary_["intervals_95"] = intervals_;
    return summary_;
  }

 private:
  std::vector<double> All(const char* key) const {
    std::vector<double> values;
    for (const auto& group : groups_) values.push_back(group.at(key).get<double>());
    return values;
  }
  void Add(const std::string& name, std::vector<double> above, const std::vector<double>& below,
           double sign) {
    for (double& value : above) value *= sign;
    summary_[name] =
        std::accumulate(above.begin(), above.end(), 0.0) / std::accumulate(below.begin(), below.end(), 0.0);
    if (const auto interval = BootstrapRatio(above, below)) {
      intervals_[name] = {interval->low, interval->high};
    }
  }

  const std::vector<nlohmann::json>& groups_;
  nlohmann::json summary_, intervals_;
};

nlohmann::json Summary(const std::vector<nlohmann::json>& groups, bool targets) {
  Averages averages(groups);
  if (targets) {
    for (const char* key : {"kl_nats", "cross_entropy_nats", "target_entropy_nats", "entropy_nats",
                            "target_mass", "expected_coverage_1000"}) {
      averages.Mean(key);
    }
  } else {
    averages.PerToken("logprob_nats", "nats_per_token", -1.0);
    averages.Set("perplexity", std::exp(averages["nats_per_token"]));
  }
  if (averages.Has("kl_from_base_nats")) {
    averages.PerToken("logprob_nats", "nats_per_token", -1.0);
    averages.PerToken("base_logprob_nats", "base_nats_per_token", -1.0);
    averages.PerToken("kl_from_base_nats", "kl_from_base_nats_per_token", 1.0);
    averages.Set("base_perplexity", std::exp(averages["base_nats_per_token"]));
    averages.Set("perplexity_rise_share",
                 std::expm1(averages["nats_per_token"] - averages["base_nats_per_token"]));
  }
  averages.Mean("possibility_mixture_entropy_nats");
  averages.Mean("possibility_information_nats");
  return averages.Take();
}

}  // namespace

void AddEvaluateOptions(CLI::App& command, EvaluateOptions& options) {
  command.add_option("--model", options.model, kModelHelp)->required();
  command.add_option("--adapter", options.adapter, kAdapterHelp);
  command.add_option("--corpus", options.corpus, "Corpus to evaluate on")->required();
  AddOutputOptions(command, options.output, options.force, "JSON with the averages and one line per prompt");
  command.add_option("--limit", options.limit, "Evaluate only the first so many groups; 0: all")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command.add_flag("--compare-base", options.compare_base,
                   "Also the model without its adapter: perplexity of both, and KL(base || tuned) a token");
  command.add_flag("--possibilities", options.possibilities,
                   "Also what the possibility numbers decide: every number with every response");
  AddComputeOptions(command, options.compute);
}

int RunEvaluate(const EvaluateOptions& given, dist::World& world, dist::Collectives& collectives) {
  if (given.compare_base && given.adapter.empty()) {
    throw ExitError(ExitCode::kUsage, "--compare-base needs --adapter: without one the model is the base");
  }
  const EvaluateOptions options = WithFolders(given, world, collectives);
  const StopSignal stop;
  SetThreads(options.compute.threads, world);
  const at::Device device = OpenDevice(options.compute, world, collectives);
  std::optional<PendingFile> output;  // rank 0
  std::optional<data::Corpus> opened;
  std::optional<Decoder> loaded;
  OnEveryRank(world, collectives, [&] {
    if (world.Rank() == 0 && !options.output.empty()) {
      RequireNewOutput(options.output, options.force);
      output.emplace(options.output);
    }
    opened = OpenCorpus(options.corpus, world);
    if (options.compare_base) RequireBaseKept(options.adapter, "--compare-base");
  });
  loaded = LoadModel(options.model, options.adapter, DTypeNamed(options.compute.dtype), device, world,
                     collectives, FullLinearsFor(options.compute.quantize));
  OnEveryRank(world, collectives, [&] {
    RequireDeviceServes(*loaded);
    CheckCorpusFitsModel(*opened, loaded->Config(), options.model);
    const std::int64_t groups = options.limit > 0 ? options.limit : opened->Info().groups;
    RequireWithinContext(*opened, opened->LongestSequence(groups), loaded->Config(), false);
    if (options.possibilities && opened->Info().possibilities == 0) {
      throw ExitError(ExitCode::kBadData, options.corpus +
                                              ": has no possibility numbers; leave --possibilities out, or "
                                              "prepare the corpus with --possibilities M");
    }
  });
  data::Corpus& corpus = *opened;
  Task task{.model = *loaded,
            .base = {},
            .targets = corpus.Info().source_format == "targets",
            .possibilities = options.possibilities,
            .pack = {}};
  if (options.compare_base) {
    task.base = loaded->WithoutAdapter();
  } else {
    WarnOfLatents(*loaded, world);
  }
  task.pack.cost = CostOf(loaded->Config(), false,
                          static_cast<std::int64_t>(c10::elementSize(loaded->DType())), loaded->Device());

  const std::int64_t count =
      options.limit > 0 ? std::min(options.limit, corpus.Info().groups) : corpus.Info().groups;
  Progress progress("evaluate", "groups", count, world.Rank() == 0, 0, std::cerr);
  std::vector<std::string> mine;
  OnEveryRank(world, collectives, [&] {
    for (const std::int64_t g : dist::MyShare(count, world)) {
      if (stop.Requested()) throw ExitError(ExitCode::kStopped, "stopped on request; nothing is kept");
      mine.push_back(EvaluateLine(task, corpus.Read(g)).dump());
      progress.Update(g + 1);
    }
  });
  const std::vector<std::string> lines = dist::GatherInOrder(mine, collectives);
  if (world.Rank() != 0) return 0;

  std::vector<nlohmann::json> groups;
  for (const std::string& line : lines) groups.push_back(nlohmann::json::parse(line));
  const nlohmann::json summary = Summary(groups, task.targets);
  std::cout << summary.dump(2) << "\n";
  if (output) {
    output->Write(nlohmann::json({{"summary", summary}, {"groups", groups}}).dump(2) + "\n");
    output->Commit();
  }
  return 0;
}

}  // namespace plural::trainer
