#include "trainer/commands/dry_run.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <set>

#include "data/batch_plan.h"
#include "data/corpus.h"
#include "data/rows.h"
#include "trainer/base/error.h"
#include "trainer/base/readable.h"
#include "trainer/commands/validate.h"
#include "trainer/files/serving_notes.h"
#include "trainer/kernels/dtypes.h"
#include "trainer/plan/activation_budget.h"
#include "trainer/plan/cost_model.h"
#include "trainer/plan/estimate.h"
#include "trainer/plan/model_flops.h"
#include "trainer/plan/peak_pass.h"
#include "trainer/plan/predict_cost.h"
#include "trainer/plan/process_memory.h"
#include "trainer/plan/step_plan.h"
#include "trainer/recipe/recipe.h"
#include "trainer/run/resume.h"
#include "trainer/run/train_setup.h"

namespace plural::trainer {
namespace {

// Large enough for stable means, small enough to take a second.
constexpr std::int64_t kSampledGroups = 64;
constexpr std::int64_t kSampledSteps = 32;
constexpr std::int64_t kManyGroupsARank = 4;

std::string Decimal(double value, int digits) {
  std::array<char, 64> text;
  std::snprintf(text.data(), text.size(), "%.*f", digits, value);
  return text.data();
}

// "12,345"
std::string Count(std::int64_t value) {
  std::string text = std::to_string(value);
  for (int at = static_cast<int>(text.size()) - 3; at > 0; at -= 3)
    text.insert(static_cast<std::size_t>(at), ",");
  return text;
}

std::string Bytes(std::int64_t bytes) {
  constexpr std::array<const char*, 5> kUnits = {"B", "KiB", "MiB", "GiB", "TiB"};
  auto value = static_cast<double>(bytes);
  std::size_t unit = 0;
  for (; value >= 1024.0 && unit + 1 < kUnits.size(); ++unit) value /= 1024.0;
  return Decimal(value, unit == 0 ? 0 : 1) + " " + kUnits[unit];
}

void Line(const std::string& name, const std::string& value) {
  constexpr std::size_t kColumn = 22;
  std::string padded = "  " + name;
  padded.resize(std::max(padded.size() + 1, kColumn), ' ');
  std::cout << padded << value << "\n";
}

struct Sample {
  std::int64_t groups = 0;
  std::int64_t sequence_tokens = 0;
  std::int64_t rows = 0;
  double flops = 0.0;                // of forward and backward
  std::int64_t without_penalty = 0;  // poexft groups whose negatives have no penalised token
};

// Groups spread evenly over the corpus, labelled and packed as the loader would.
Sample SampleGroups(data::Corpus& corpus, const Recipe& recipe, const ModelConfig& config,
                    const data::PackSettings& pack) {
  const std::int64_t groups = corpus.Info().groups;
  Sample sample;
  sample.groups = std::min(groups, kSampledGroups);
  std::vector<data::LabelledGroup> labelled;
  for (std::int64_t i = 0; i < sample.groups; ++i) {
    labelled.push_back(
        Label(*recipe.method, corpus.Read(i * groups / sample.groups), recipe.SettingsOfMethod().label, 0));
    sample.sequence_tokens += labelled.back().sequence_tokens;
    sample.without_penalty += labelled.back().penalised_tokens == 0 ? 1 : 0;
  }
  for (const data::RowPass& pass : data::PackGroups(labelled, pack, 1.0)) {
    sample.rows += pass.rows;
    sample.flops += ModelFlops(config, recipe.adapter.lora ? &recipe.adapter.settings : nullptr, pass);
  }
  return sample;
}

// Share of time that ranks are busy over steps spread evenly over an epoch: a step lasts as long as its
// slowest rank.
double PredictBalance(const std::vector<double>& costs, data::BatchPlan::Settings plan_settings,
                      std::int64_t groups_per_step, int ranks, bool neighbours) {
  plan_settings.groups_per_step = groups_per_step;
  const data::BatchPlan plan(static_cast<std::int64_t>(costs.size()), plan_settings);
  // The last step of an epoch holds what is left; it says little where others exist.
  const std::int64_t full_steps =
      std::max<std::int64_t>(1, static_cast<std::int64_t>(costs.size()) / groups_per_step);
  const std::int64_t steps = std::min(full_steps, kSampledSteps);
  double busy = 0.0, all = 0.0;
  for (std::int64_t i = 0; i < steps; ++i) {
    std::vector<double> step_costs;
    for (const std::int64_t group : plan.StepGroups(i * full_steps / steps)) {
      step_costs.push_back(costs[static_cast<std::size_t>(group)]);
    }
    const double mean = std::accumulate(step_costs.begin(), step_costs.end(), 0.0) / ranks;
    busy += mean;
    all += mean / data::Balance(step_costs, neighbours ? data::AssignNeighbours(step_costs, ranks)
                                                       : data::AssignToRanks(step_costs, ranks));
  }
  return all > 0.0 ? busy / all : 1.0;
}

// What validations add to the arithmetic of the run, at most: the loss of every group, and samples that all
// are as long as they may be.
void PrintValidation(data::Corpus& corpus, const Recipe& recipe, const Sample& sample, std::int64_t groups,
                     std::int64_t steps) {
  const Recipe::Validation& asked = recipe.validation;
  const std::int64_t every = asked.every_steps;
  // After the last step it is measured once more, unless it has just been.
  const std::int64_t times = every == 0 ? 1 : (steps + every - 1) / every;
  const std::int64_t measured = std::min(asked.groups, corpus.Info().groups);
  double prompt_rows = 0.0;
  for (std::int64_t g = 0; g < measured; ++g) prompt_rows += static_cast<double>(corpus.Lengths(g).prompt);
  const double rows_a_group = static_cast<double>(sample.rows) / static_cast<double>(sample.groups);
  const auto responses = static_cast<double>(measured * asked.responses);
  const double sampled =
      responses == 0.0 ? 0.0 : prompt_rows + responses * static_cast<double>(asked.max_new_tokens);
  // A forward pass alone: backward costs as much again with a frozen base, twice as much without.
  const double forward = recipe.adapter.lora ? 1.0 / 2 : 1.0 / 3;
  const double one = forward * (static_cast<double>(measured) * rows_a_group + sampled);
  const double trained_groups =
      static_cast<double>(steps) * static_cast<double>(std::min(recipe.train.groups_per_step, groups));
  const double share = static_cast<double>(times) * one / (trained_groups * rows_a_group);
  Line("validations", Count(times) + " of " + Counted(measured, "group") + " and " +
                          Counted(static_cast<std::int64_t>(responses), "sampled response") + ": at most " +
                          FourDigits(100.0 * share) + " % on top of the training's arithmetic");
  if (share > 0.5) {
    Line("", "sampling decodes one token at a time, slower than training: raise");
    Line("", "validation.every_steps, or lower validation.groups or validation.responses");
  }
}

void PrintBalance(const data::Corpus& corpus, const Recipe& recipe, const data::PackSettings& pack,
                  int asked_ranks) {
  const std::int64_t groups = corpus.Info().groups;
  std::vector<double> costs;
  costs.reserve(static_cast<std::size_t>(groups));
  for (std::int64_t group = 0; group < groups; ++group) {
    costs.push_back(
        PredictCost(corpus.Lengths(group), *recipe.method, recipe.SettingsOfMethod().label, pack.cost));
  }
  std::set<int> rank_counts = {1, 2, 4, 8, 64, 1024};
  rank_counts.insert(asked_ranks);
  std::cout << "\nPredicted balance (share of time that ranks are busy)\n" << std::flush;
  const std::string now_title = "at groups_per_step " + std::to_string(recipe.train.groups_per_step);
  std::printf("  %6s   %-24s   at %d groups per rank\n", "ranks", now_title.c_str(),
              static_cast<int>(kManyGroupsARank));
  const auto percent = [](double share) { return Decimal(100.0 * share, 1) + " %"; };
  for (const int ranks : rank_counts) {
    const std::int64_t now = std::min(recipe.train.groups_per_step, groups);
    const std::int64_t many = kManyGroupsARank * ranks;
    std::string here =
        percent(PredictBalance(costs, PlanSettings(recipe), now, ranks, recipe.train.canonical));
    if (now < ranks) here += " (" + Count(ranks - now) + " idle)";
    const std::string there =
        many <= groups
            ? percent(PredictBalance(costs, PlanSettings(recipe), many, ranks, recipe.train.canonical))
            : "more groups than the corpus has";
    std::printf("  %6d   %-24s   %s\n", ranks, here.c_str(), there.c_str());
  }
  std::fflush(stdout);
}

// The memory of one rank's process on the CPU, or of its GPU.
struct Memory {
  std::int64_t program = 0;   // with its libraries; nothing of a GPU, whose are not known
  std::int64_t training = 0;  // but for what stays in host memory beside a GPU
  PeakPass pass;              // the largest
  std::int64_t slack = 0;     // of the allocator
  std::int64_t peak = 0;      // all together
};

Memory PredictMemory(data::Corpus& corpus, const Recipe& recipe, const ModelConfig& config,
                     const data::PackSettings& pack, const RunEstimate& run, int ranks, at::Device device) {
  const bool recompute = recipe.train.activation_checkpointing == "on";
  Memory memory = {.program = device.is_cpu() ? ResidentBytes() + kLibraryBytes : 0,
                   .training = run.training_bytes - (device.is_cpu() ? 0 : run.host_bytes),
                   .pass = FindPeakPass(corpus, recipe, config, pack, ranks, recompute, device)};
  const std::int64_t tensors = memory.pass.memory.PeakBytes();
  const double slack = !device.is_cpu() ? 1.0 / kUsedOnGpu - 1.0
                       : recompute      ? kRecomputeSlack
                                        : kAllocatorSlack;
  memory.slack = static_cast<std::int64_t>(slack * static_cast<double>(tensors));
  memory.peak = memory.program + run.weight_bytes + memory.training + tensors + memory.slack;
  return memory;
}

void PrintMemory(data::Corpus& corpus, const Recipe& recipe, const ModelConfig& config,
                 const data::PackSettings& pack, const RunEstimate& run, int ranks, at::Device device) {
  const auto [program, training, pass, slack, peak] =
      PredictMemory(corpus, recipe, config, pack, run, ranks, device);
  const bool cpu = device.is_cpu();
  std::cout << (cpu ? "\nPeak memory of one rank's process on the CPU, predicted\n"
                    : "\nPeak memory of one rank's GPU, predicted (not compared with a GPU yet)\n");
  if (cpu) Line("program", Bytes(program) + " with its libraries");
  Line("frozen weights", Bytes(run.weight_bytes));
  Line("training", Bytes(training) + " (parameters, gradients, " +
                       (recipe.ShardsOptimizer(ranks) ? "a rank's share of two moments" : "two moments") +
                       (cpu && recipe.train.canonical ? ", partial sums" : "") +
                       (cpu && recipe.CopiesCheckpoints() ? ", a copy for the checkpoint" : "") + ")");
  if (!cpu && run.host_bytes > 0) {
    Line("in host memory", Bytes(run.host_bytes) + " (" + (recipe.train.canonical ? "partial sums" : "") +
                               (recipe.train.canonical && recipe.CopiesCheckpoints() ? ", " : "") +
                               (recipe.CopiesCheckpoints() ? "a copy for the checkpoint" : "") + ")");
  }
  Line("largest pass", Bytes(pass.memory.PeakBytes()) + " for " + Count(pass.rows) + " rows (" +
                           Bytes(pass.memory.saved_bytes) + " kept for backward), " + Bytes(slack) +
                           " of slack");
  Line("together", Bytes(peak) + ", " + Bytes(peak * ranks) + " over " + Count(ranks) +
                       (ranks == 1 ? " rank" : " ranks") + (cpu ? "" : "; libraries come on top"));
  if (recipe.train.activation_checkpointing == "on") return;
  const PeakPass twice = FindPeakPass(corpus, recipe, config, pack, ranks, true, device);
  Line("recomputed", "the largest pass takes " + Bytes(twice.memory.PeakBytes()) +
                         " with train.activation_checkpointing on");
}

void PrintWarnings(const std::vector<std::string>& warnings) {
  for (const std::string& warning : warnings) std::cerr << "plural: warning: " << warning << "\n";
}

}  // namespace

void AddDryRunOptions(CLI::App& command, DryRunOptions& options) {
  AddRecipeArguments(command, options.recipe, options.overrides);
  command.get_option("RECIPE")->required();
  command.add_option("--ranks", options.ranks, "how many ranks the run would have")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  command
      .add_option(
          "--device", options.device,
          "What to predict for: cpu, or cuda, which need not be there; the recipe's model.device, auto "
          "as cpu, unless given")
      ->check(CLI::IsMember({"cpu", "cuda"}));
  command.add_flag("--json", options.json, "Print one JSON object of steps, arithmetic and sizes instead");
}

int RunDryRun(const DryRunOptions& options) {
  const Recipe recipe = LoadRecipe(options.recipe, options.overrides);
  const ModelConfig config = ConfigOf(recipe);
  data::Corpus corpus = OpenCorpusOf(recipe, "data.train", recipe.data.train);
  std::vector<std::string> warnings;
  CheckTrainingCorpus(corpus, recipe, config, warnings);
  std::optional<data::Corpus> validation;
  if (!recipe.data.validation.empty()) {
    validation = OpenCorpusOf(recipe, "data.validation", recipe.data.validation);
    CheckValidationCorpus(*validation, corpus, recipe, config, warnings);
  }
  if (recipe.adapter.lora) {
    for (const auto& note : ServingNotes(config, recipe.adapter.settings)) warnings.push_back(note);
  }
  const std::int64_t groups = corpus.Info().groups;
  const at::Device device =
      (options.device.empty() ? recipe.model.device : options.device) == "cuda" ? at::kCUDA : at::kCPU;
  const data::PackSettings pack = {
      .layout = recipe.train.layout,
      .cost = CostOf(config, !recipe.adapter.lora, ElementBytes(recipe.model.dtype), device),
      .row_budget = RowBudgetOf(recipe.train.row_budget, recipe.train.layout, recipe.method->latents, config,
                                ElementBytes(recipe.model.dtype), device)};
  const Sample sample = SampleGroups(corpus, recipe, config, pack);
  const std::int64_t steps_per_epoch = data::BatchPlan(groups, PlanSettings(recipe)).StepsPerEpoch();
  const std::int64_t steps = TotalSteps(recipe, groups);
  const std::string begins = CheckStart(recipe);
  const RunEstimate run = EstimateRun(recipe, config, options.ranks);
  const std::int64_t every = recipe.checkpoint.every_steps;
  const std::int64_t saved = every == 0 ? 1 : (steps + every - 1) / every;
  const std::int64_t kept = std::min(saved, recipe.checkpoint.keep);
  if (options.json) {
    const auto of_sample = [&](double total) { return total / static_cast<double>(sample.groups); };
    std::cout << nlohmann::ordered_json{{"steps", steps},
                                        {"groups_per_step", std::min(recipe.train.groups_per_step, groups)},
                                        {"gflop_per_group", of_sample(1e-9 * sample.flops)},
                                        {"rows_per_group", of_sample(static_cast<double>(sample.rows))},
                                        {"tokens_per_group",
                                         of_sample(static_cast<double>(sample.sequence_tokens))},
                                        {"trained_parameters", run.trained_parameters},
                                        {"rank_memory_bytes", PredictMemory(corpus, recipe, config, pack, run,
                                                                            options.ranks, device)
                                                                  .peak},
                                        {"disk_bytes", kept * run.checkpoint_bytes + run.trained_bytes}}
                     .dump()
              << "\n";
    PrintWarnings(warnings);
    return 0;
  }

  std::cout << "Work (" << recipe.data.train << ")\n";
  Line("groups", Count(groups) + ", " + Counted(corpus.Info().responses, "response"));
  Line("steps", Count(steps) + " (" + Count(steps_per_epoch) + " per epoch, each of " +
                    Count(recipe.train.groups_per_step) + " groups over all ranks)");
  if (!begins.empty()) Line("goes on", begins);
  const auto per_group = [&](std::int64_t total) {
    return Decimal(static_cast<double>(total) / static_cast<double>(sample.groups), 1);
  };
  Line("tokens per group",
       per_group(sample.sequence_tokens) + " in its sequences, " + per_group(sample.rows) +
           " rows computed, shared " +
           Decimal(static_cast<double>(sample.sequence_tokens) / static_cast<double>(sample.rows), 2) +
           "x (mean of " + Counted(sample.groups, "group") + ")");
  Line("arithmetic per group",
       Decimal(1e-9 * sample.flops / static_cast<double>(sample.groups), 1) + " GFLOP forward and backward");
  if (recipe.method->negatives) {
    Line("without penalty",
         Count(sample.without_penalty) + " of " + Count(sample.groups) + " groups have no penalised token");
  }
  if (validation) PrintValidation(*validation, recipe, sample, groups, steps);
  std::cout << std::flush;
  PrintBalance(corpus, recipe, pack, options.ranks);

  std::cout << "\nModel\n";
  Line("base parameters", Count(run.base_parameters));
  Line("trained parameters",
       Count(run.trained_parameters) + " (" +
           Decimal(
               100.0 * static_cast<double>(run.trained_parameters) / static_cast<double>(run.base_parameters),
               3) +
           " % of the base), " + Bytes(run.trained_bytes) + " as " +
           (recipe.adapter.lora && recipe.model.dtype == "bf16" ? "fp32" : recipe.model.dtype));
  PrintMemory(corpus, recipe, config, pack, run, options.ranks, device);

  std::error_code ignored;
  std::cout << "\nFiles in " << recipe.RunFolder().string()
            << (std::filesystem::exists(recipe.RunFolder(), ignored) ? " (exists: train would continue it)"
                                                                     : "")
            << "\n";
  Line("recipe.yaml", "the resolved recipe");
  Line("metrics.jsonl", Counted(steps, "step line"));
  Line("checkpoints/",
       Count(kept) + " x " + Bytes(run.checkpoint_bytes) + " kept, one more while one is written");
  Line(recipe.adapter.lora ? "adapter/" : "model/", Bytes(run.trained_bytes) + ", Hugging Face format");
  Line("log/", "one file per rank");
  PrintWarnings(warnings);
  return 0;
}

}  // namespace plural::trainer
