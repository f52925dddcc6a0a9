// Evaluation: exact figures of a model on groups, by teacher forcing; nothing is sampled.
//
// Owns: the figures of one group, and intervals of means over groups. Does not own: the forward
// pass (objective.h), which groups and what is printed (commands/evaluate.h, validation.h). Thread
// rule: pure functions, one thread.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "data/group.h"
#include "data/rows.h"
#include "trainer/method/target_figures.h"
#include "trainer/model/decoder.h"

namespace plural::trainer {

// Log-probability (nats) of each of the group's sequences, in the order of group.sequences.
std::vector<double> SequenceLogP(const Decoder& model, const data::LabelledGroup& group,
                                 const data::PackSettings& pack);

// The effect of the possibility numbers. With q_k(j) the probability of response j among the
// group's R responses under number k (their likelihoods, renormalised), over all k = 1..M:
struct PossibilityFigures {
  // H(mean_k q_k), at most ln R: how even the responses are over all numbers.
  double mixture_entropy_nats = 0.0;
  double information_nats = 0.0;  // H(mean_k q_k) - mean_k H(q_k): how far the number decides
};

struct GroupFigures {
  std::int64_t sequences = 0;
  std::int64_t response_tokens = 0;
  double logprob_nats = 0.0;             // of all responses, without a number
  std::optional<TargetFigures> targets;  // of a target set
  // Targets expected among 1,000 draws of the model: sum of 1 - (1 - p)^1000 (docs/methods.md 8.3).
  // This is the prompt's `coverage_valid`, without sampling.
  double expected_coverage = 0.0;
};
constexpr double kCoverageDraws = 1000.0;

// `targets`: the responses are a target set (corpus format `targets`).
GroupFigures EvaluateGroup(const Decoder& model, const data::Group& group, bool targets,
                           const data::PackSettings& pack);

// Takes all of the group's numbers with all of its responses; none for a corpus without numbers or
// a group of fewer than two responses.
std::optional<PossibilityFigures> EvaluatePossibilities(const Decoder& model, const data::Group& group,
                                                        const data::PackSettings& pack);
// The figures from log p(r_j | k), [M][R].
PossibilityFigures FiguresOfPossibilities(const std::vector<std::vector<double>>& log_p);

// Sum over the group's response tokens of KL(p_from || p_to) of the next-token distributions, nats,
// without a number: how far tuning has moved the model on text that it was not tuned on
// (docs/methods.md 8.6).
double TokenKl(const Decoder& from, const Decoder& to, const data::Group& group,
               const data::PackSettings& pack);

// 95 % percentile bootstrap (1,000 resamples of groups, always the same draws) of sum(numerator) /
// sum(denominator); none for fewer than two groups.
struct Interval {
  double low = 0.0, high = 0.0;
};
std::optional<Interval> BootstrapRatio(std::span<const double> numerator,
                                       std::span<const double> denominator);

}  // namespace plural::trainer
