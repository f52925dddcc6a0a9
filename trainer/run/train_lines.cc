#include "trainer/run/train_lines.h"

#include <algorithm>
#include <numeric>

#include "trainer/base/readable.h"

namespace plural::trainer {
namespace {

std::int64_t Count(const Sums& sums, const char* name) { return static_cast<std::int64_t>(sums[name]); }

}  // namespace

void AddFigures(const Method& method, const MethodSettings& settings, Lines kind, const Sums& sums,
                MetricsLine& line) {
  for (const auto& [name, value] : FiguresOf(method, settings, kind, sums)) {
    line[std::string(name)] = MetricsNumber(value);
  }
}

const char* ActionOn(const StepFigures& figures) {
  if (figures.gives_up) return "stop";
  return figures.updated ? "warn" : "skip";
}

MetricsLine SpikeLine(std::int64_t step, const StepFigures& figures,
                      const std::vector<std::int64_t>& groups) {
  MetricsLine line;
  line["event"] = "spike";
  line["step"] = step;
  line["action"] = ActionOn(figures);
  line["figure"] = figures.spike->figure;
  line["value"] = figures.spike->value;
  line["median"] = figures.spike->median;
  line["median_steps"] = figures.spike->steps;
  line["group_ids"] = groups;
  return line;
}

std::string SpikeText(std::int64_t step, const StepFigures& figures,
                      const std::vector<std::int64_t>& groups) {
  constexpr std::size_t kMostShown = 64;  // metrics.jsonl has all
  std::string list;
  for (std::size_t i = 0; i < std::min(groups.size(), kMostShown); ++i) {
    list += (list.empty() ? "" : ", ") + std::to_string(groups[i]);
  }
  if (groups.size() > kMostShown) list += ", ...";
  const Spike& spike = *figures.spike;
  return "step " + std::to_string(step) + " stands out: its " +
         (spike.figure == "loss" ? "loss " : "gradient norm ") + FourDigits(spike.value) + " is " +
         FourDigits(spike.value / spike.median) + " times " + FourDigits(spike.median) +
         ", the median of the last " + Counted(spike.steps, "step") + "; its groups: " + list;
}

MetricsLine StepLine(const Method& method, const MethodSettings& settings, const StepFigures& figures,
                     const StepTimes& times) {
  const Sums& sums = figures.sums;
  MetricsLine line;
  line["event"] = "step";
  line["step"] = times.step;
  line["epoch"] = times.epoch;
  line["loss"] = MetricsNumber(figures.loss);
  line["likelihood"] = MetricsNumber(sums["likelihood"]);
  line["unlikelihood"] = MetricsNumber(sums["unlikelihood"]);
  AddFigures(method, settings, kStepLine, sums, line);
  line["grad_norm"] = MetricsNumber(figures.grad_norm);
  line["lr"] = figures.lr;
  line["groups"] = Count(sums, "groups");
  line["rows"] = Count(sums, "rows");
  line["sequence_tokens"] = Count(sums, "sequence_tokens");
  line["seconds"] = times.seconds;
  line["data_wait_seconds"] = times.data_wait_seconds;
  if (const std::vector<double>& ranks = figures.rank_seconds; ranks.size() > 1) {
    const auto slowest = std::max_element(ranks.begin(), ranks.end());
    line["slowest_rank"] = slowest - ranks.begin();
    line["slowest_rank_seconds"] = *slowest;
    line["mean_rank_seconds"] =
        std::accumulate(ranks.begin(), ranks.end(), 0.0) / static_cast<double>(ranks.size());
  }
  line["host_memory_bytes"] = times.host_memory_bytes;
  line["unpenalised_groups"] = Count(sums, "unpenalised_groups");
  if (figures.spike) line["spike"] = ActionOn(figures);
  if (sums["recomputed_passes"] > 0.0) line["recomputed_passes"] = Count(sums, "recomputed_passes");
  return line;
}

std::string ValidationText(std::int64_t step, const MetricsLine& figures) {
  std::string shown = "validation after step " + std::to_string(step) + ":";
  const auto show = [&](const char* key, const char* before, const char* behind) {
    if (!figures.contains(key)) return;
    const auto& value = figures[key];  // a text where it is not finite
    shown += std::string(shown.back() == ':' ? " " : ", ") + before +
             (value.is_number() ? FourDigits(value.get<double>()) : value.get<std::string>()) + behind;
  };
  show("loss", "loss ", "");
  show("perplexity", "perplexity ", "");
  show("kl_nats", "KL ", " nats");
  show("possibility_information_nats", "information ", " nats");
  show("different_responses", "", " different responses");
  show("seconds", "", " s");
  return shown;
}

MetricsLine EpochLine(const Method& method, const MethodSettings& settings, const Position& position) {
  const Sums& sums = position.epoch_sums;
  MetricsLine line;
  line["event"] = "pass";  // the file format's word for an epoch
  line["step"] = position.step;
  line["epoch"] = position.epoch;
  line["groups"] = Count(sums, "groups");
  line["loss"] = MetricsNumber(sums["loss"] / sums["groups"]);
  line["unpenalised_groups"] = Count(sums, "unpenalised_groups");
  AddFigures(method, settings, kEpochLine, sums, line);
  if (method.target_sets) line["stopped_early"] = position.stopped_early;
  return line;
}

}  // namespace plural::trainer
