#include "trainer/run/collapse.h"

#include <limits>
#include <utility>

#include "trainer/base/readable.h"

namespace plural::trainer {
namespace {

// Figures that may be the best (checkpoint.keep_best), then those that tell of a collapse alone. A line has
// those of its method and its samples.
constexpr const char* kKept[] = {"loss", "kl_nats", "perplexity"};
constexpr const char* kWatched[] = {"perplexity", "target_mass"};
// These fall where a model with few targets learns, so that they are not watched there.
constexpr const char* kWatchedOfSamples[] = {"different_responses", "token_distinct_2", "finished_share"};

template <typename Names>
void AddNamed(const Names& names, const MetricsLine& line, std::vector<ValidationFigure>& figures) {
  for (const char* name : names) {
    if (!line.contains(name)) continue;
    const auto& value = line[name];  // a text where it is not finite
    figures.push_back(
        {name, value.is_number() ? value.get<double>() : std::numeric_limits<double>::quiet_NaN()});
  }
}

}  // namespace

std::optional<CollapseVerdict> JudgeValidation(const MetricsLine& figures, std::int64_t step,
                                               const Recipe& recipe, ValidationRecord& record) {
  const CollapseAction asked = recipe.guard.collapse;
  if (asked == CollapseAction::kOff && !recipe.KeepsBest()) return std::nullopt;
  std::vector<ValidationFigure> watched, kept;
  AddNamed(kWatched, figures, watched);
  if (!recipe.method->target_sets) AddNamed(kWatchedOfSamples, figures, watched);
  AddNamed(kKept, figures, kept);

  std::optional<CollapseVerdict> verdict;
  if (asked != CollapseAction::kOff) {
    if (auto found = FindCollapse(record, watched, recipe.guard.collapse_factor)) {
      verdict = {.what = std::move(*found), .action = asked};
    }
  }
  if (verdict && asked == CollapseAction::kLower) {
    if (record.lowered_in_row >= kMostLoweredInRow) verdict->action = CollapseAction::kStop;
  }
  if (!verdict || verdict->action != CollapseAction::kStop) {
    NoteFigures(record, kept, step);
    NoteFigures(record, watched, step);
    if (verdict && verdict->action == CollapseAction::kLower) {
      record.unlikelihood_scale *= 0.5;
      ++record.lowered_in_row;
    } else {
      record.lowered_in_row = 0;
    }
  }
  if (verdict) verdict->unlikelihood_alpha = recipe.loss.unlikelihood_alpha * record.unlikelihood_scale;
  return verdict;
}

MetricsLine CollapseLine(std::int64_t step, const CollapseVerdict& verdict) {
  MetricsLine line;
  line["event"] = "collapse";
  line["step"] = step;
  line["action"] = verdict.action == CollapseAction::kWarn    ? "warn"
                   : verdict.action == CollapseAction::kLower ? "lower"
                                                              : "stop";
  line["figure"] = verdict.what.figure;
  line["value"] = MetricsNumber(verdict.what.value);
  line["best"] = verdict.what.best;
  line["best_step"] = verdict.what.best_step;
  if (verdict.action == CollapseAction::kLower) line["unlikelihood_alpha"] = verdict.unlikelihood_alpha;
  return line;
}

std::string CollapseText(std::int64_t step, const CollapseVerdict& verdict) {
  const Collapse& what = verdict.what;
  return "validation after step " + std::to_string(step) + ": the model seems to collapse: " + what.figure +
         " is " + FourDigits(what.value) + ", and was " + FourDigits(what.best) + " after step " +
         std::to_string(what.best_step);
}

std::string CollapseOutcome(const CollapseVerdict& verdict) {
  if (verdict.action != CollapseAction::kLower) return "; the run goes on (guard.collapse is warn)";
  return "; the unlikelihood weight is " + FourDigits(verdict.unlikelihood_alpha) +
         " from here on (guard.collapse is lower)";
}

}  // namespace plural::trainer
