// Distribution matching: the cross-entropy of a set of responses to target probabilities, so that
// sampling follows the target distribution (docs/methods.md 3.5).
#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>

#include "trainer/method/method.h"
#include "trainer/method/target_figures.h"

namespace plural::trainer::methods {
namespace {

std::string FirstTokens(const std::vector<data::Token>& tokens) {
  constexpr std::size_t kShown = 8;
  std::string text = "[";
  for (std::size_t i = 0; i < std::min(tokens.size(), kShown); ++i) {
    text += (i == 0 ? "" : " ") + std::to_string(tokens[i]);
  }
  return text + (tokens.size() > kShown ? " ...]" : "]");
}

// A target that begins another one would get the other's mass, too, and the loss would have no
// minimum at p* (docs/methods.md 3.5).
void CheckPrefixFree(const data::Group& group) {
  const std::vector<data::Response>& targets = group.responses;
  std::vector<std::size_t> order(targets.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(
      order, [&](std::size_t a, std::size_t b) { return targets[a].tokens < targets[b].tokens; });
  // In lexicographic order a prefix comes directly before a sequence that it begins.
  for (std::size_t i = 1; i < order.size(); ++i) {
    const std::vector<data::Token>& shorter = targets[order[i - 1]].tokens;
    const std::vector<data::Token>& longer = targets[order[i]].tokens;
    if (shorter.size() > longer.size() || !std::equal(shorter.begin(), shorter.end(), longer.begin()))
      continue;
    const std::string first = std::to_string(order[i - 1]);
    const std::string second = std::to_string(order[i]);
    const std::string tokens = std::to_string(shorter.size()) + " tokens " + FirstTokens(shorter);
    if (shorter.size() == longer.size()) {
      data::Refuse(group,
                   "targets " + first + " and " + second + " (from 0) are equal, " + tokens +
                       "; no target may begin another: keep one of them with the sum of their weights");
    }
    data::Refuse(group,
                 "target " + first + ", " + tokens + ", begins target " + second + ", " +
                     std::to_string(longer.size()) + " tokens " + FirstTokens(longer) +
                     " (both from 0); no target may begin another: prepare the corpus with a terminator "
                     "after each target (eos: true)");
  }
}

void MarkTargets(data::LabelledGroup& labelled) {
  for (data::LabelledSequence& sequence : labelled.sequences) {
    sequence.target = sequence.likelihood.front();
    if (sequence.target > 0.0) labelled.target_entropy_nats -= sequence.target * std::log(sequence.target);
  }
}

// All responses are targets, p*(y_i) = w_i / sum w. Every token of y_i has the weight p*(y_i), so
// that the loss is -sum p* log p, whatever the normalisation. Errors: DataError where one target
// begins or equals another.
data::LabelledGroup LabelTargets(const data::Group& group, int used, const data::LabelSettings& /*settings*/,
                                 std::int64_t /*epoch*/) {
  CheckPrefixFree(group);
  data::LabelledGroup labelled =
      data::Positives(group, data::WithoutNumbers(used), data::Normalization::kSequenceSum);
  MarkTargets(labelled);
  return labelled;
}

std::vector<std::string> TargetSumNames(const MethodSettings& /*settings*/) {
  return {"kl_nats", "cross_entropy_nats", "target_entropy_nats", "target_mass", "entropy_nats"};
}

void AddTargets(const data::LabelledGroup& group, const std::vector<double>& sequence_log_p, Sums& sums) {
  const TargetFigures targets = FiguresOfTargets(group, sequence_log_p);
  sums["kl_nats"] += targets.kl_nats;
  sums["cross_entropy_nats"] += targets.cross_entropy_nats;
  sums["target_entropy_nats"] += targets.target_entropy_nats;
  sums["target_mass"] += targets.target_mass;
  sums["entropy_nats"] += targets.entropy_nats;
}

constexpr unsigned kBothLines = kEpochLine | kValidationLine;
constexpr Figure kTargetFigures[] = {{"kl_nats", kBothLines},
                                     {"entropy_nats", kBothLines},
                                     {"target_mass", kBothLines},
                                     {"cross_entropy_nats", kBothLines},
                                     {"target_entropy_nats", kEpochLine}};

constexpr KeyDefault kMatchingDefaults[] = {{"group.responses", "0"},      {"validation.responses", "0"},
                                            {"train.epochs", "50"},        {"train.groups_per_step", "1"},
                                            {"optimizer.eps", "1e-5"},     {"optimizer.weight_decay", "0.01"},
                                            {"optimizer.clip_norm", "1.0"}};

}  // namespace

extern const Method distribution_matching;
constinit const Method distribution_matching = {.name = "distribution_matching",
                                                .defaults = kMatchingDefaults,
                                                .responses = UsedResponses::kAll,
                                                .target_sets = true,
                                                .label = LabelTargets,
                                                .sums = TargetSumNames,
                                                .add_sums = AddTargets,
                                                .figures = kTargetFigures};

}  // namespace plural::trainer::methods
