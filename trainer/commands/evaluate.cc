#include "trainer/commands/evaluate.h"

#include <ATen/core/Tensor.h>
#include <c10/core/GradMode.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>

#include "data/batch_plan.h"
#include "data/corpus.h"
#include "data/labelling.h"
#include "data/rows.h"
#include "trainer/agreement.h"
#include "trainer/commands/model_options.h"
#include "trainer/cost_model.h"
#include "trainer/file_io.h"
#include "trainer/model/load_model.h"
#include "trainer/objective.h"
#include "trainer/progress.h"

namespace plural::trainer {
namespace {

// Log-probability of each of the group's sequences, in the order of group.sequences.
std::vector<double> SequenceLogP(const Decoder& model, const data::LabelledGroup& group,
                                 const data::CostModel& cost) {
  data::PackSettings pack;
  pack.cost = cost;
  std::vector<double> log_p(group.sequences.size());
  for (const data::RowPass& pass : data::PackGroups({&group, 1}, pack, 1.0)) {
    const PassResult result = RunPass(model, pass, ObjectiveSettings{});
    for (std::size_t s = 0; s < pass.sequences.size(); ++s) {
      log_p[static_cast<std::size_t>(pass.sequences[s].sequence)] = result.sequence_log_p[s];
    }
  }
  return log_p;
}

nlohmann::json EvaluateGroup(const Decoder& model, const data::Group& group, bool targets,
                             const data::CostModel& cost) {
  data::LabelSettings label;
  label.method = targets ? data::Method::kDistributionMatching : data::Method::kOtmft;
  label.responses = 0;
  const data::LabelledGroup labelled = data::Label(group, label, 0);
  const std::vector<double> log_p = SequenceLogP(model, labelled, cost);
  nlohmann::json line = {{"id", group.id}};
  if (targets) {
    const TargetFigures figures = FiguresOfTargets(labelled, log_p);
    line["kl_nats"] = figures.kl_nats;
    line["cross_entropy_nats"] = figures.cross_entropy_nats;
    line["target_entropy_nats"] = figures.target_entropy_nats;
    line["entropy_nats"] = figures.entropy_nats;
    line["target_mass"] = figures.target_mass;
  } else {
    double sum = 0.0;
    for (const double value : log_p) sum += value;
    line["logprob_nats"] = sum;
  }
  line["sequences"] = labelled.sequences.size();
  line["response_tokens"] = labelled.positive_tokens;
  return line;
}

nlohmann::json Summary(const std::vector<nlohmann::json>& groups, bool targets) {
  nlohmann::json summary = {{"groups", groups.size()}};
  const auto sum = [&](const char* key) {
    double total = 0.0;
    for (const nlohmann::json& group : groups) total += group.at(key).get<double>();
    return total;
  };
  if (targets) {
    for (const char* key :
         {"kl_nats", "cross_entropy_nats", "target_entropy_nats", "entropy_nats", "target_mass"}) {
      summary[key] = sum(key) / static_cast<double>(groups.size());
    }
  } else {
    const double nats = -sum("logprob_nats") / sum("response_tokens");
    summary["nats_per_token"] = nats;
    summary["perplexity"] = std::exp(nats);
  }
  return summary;
}

}  // namespace

void AddEvaluateOptions(CLI::App& command, EvaluateOptions& options) {
  command.add_option("--model", options.model, "Hugging Face folder of the model")->required();
  command.add_option("--adapter", options.adapter, "Folder of a LoRA adapter for it");
  command.add_option("--corpus", options.corpus, "Corpus to evaluate on")->required();
  command.add_option("-o,--output", options.output, "JSON with the averages and a line a prompt");
  command.add_option("--limit", options.limit, "Evaluate only the first so many groups; 0: all")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  AddComputeOptions(command, options.dtype, options.threads);
}

int RunEvaluate(const EvaluateOptions& options, dist::World& world, dist::Collectives& collectives) {
  SetThreads(options.threads, world);
  std::optional<PendingFile> output;
  if (world.Rank() == 0 && !options.output.empty()) output.emplace(options.output);

  std::optional<data::Corpus> opened;
  std::optional<Decoder> loaded;
  OnEveryRank(world, collectives, [&] {
    opened = OpenCorpus(options.corpus, world);
    loaded = LoadModel(options.model, options.adapter, ParseDType(options.dtype), at::Device(at::kCPU));
    CheckCorpusFitsModel(*opened, loaded->Config(), options.model);
  });
  data::Corpus& corpus = *opened;
  const Decoder& model = *loaded;
  const bool targets = corpus.Info().source_format == "targets";
  const data::CostModel cost =
      CostOf(model.Config(), false, static_cast<std::int64_t>(c10::elementSize(model.DType())));

  const std::int64_t count =
      options.limit > 0 ? std::min(options.limit, corpus.Info().groups) : corpus.Info().groups;
  const c10::NoGradGuard no_grad;
  Progress progress("evaluate", "groups", count, world.Rank() == 0, 0, std::cerr);
  std::string lines;
  for (std::int64_t g = world.Rank(); g < count; g += world.Size()) {
    lines += EvaluateGroup(model, corpus.Read(g), targets, cost).dump() + "\n";
    progress.Update(g + 1);
  }
  const std::vector<std::string> parts = collectives.AllGather(lines);
  if (world.Rank() != 0) return 0;

  // Rank r holds groups r, r + size, ...: taking one line of each in turn restores corpus order.
  std::vector<std::vector<nlohmann::json>> of_rank;
  for (const std::string& part : parts) {
    std::vector<nlohmann::json>& groups = of_rank.emplace_back();
    for (std::size_t at = 0; at < part.size();) {
      const std::size_t end = part.find('\n', at);
      groups.push_back(nlohmann::json::parse(part.substr(at, end - at)));
      at = end + 1;
    }
  }
  std::vector<nlohmann::json> groups;
  for (std::int64_t g = 0; g < count; ++g) {
    groups.push_back(
        of_rank[static_cast<std::size_t>(g % world.Size())][static_cast<std::size_t>(g / world.Size())]);
  }
  const nlohmann::json summary = Summary(groups, targets);
  std::cout << summary.dump(2) << "\n";
  if (output) {
    output->Write(nlohmann::json({{"summary", summary}, {"groups", groups}}).dump(2) + "\n");
    output->Commit();
  }
  return 0;
}

}  // namespace plural::trainer
