#include "trainer/method/evaluation.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/log_softmax.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>
#include <string_view>
#include <utility>

#include "data/labelling.h"
#include "data/random.h"
#include "trainer/method/method.h"
#include "trainer/method/objective.h"
#include "trainer/method/pass_forward.h"
#include "trainer/ops/to_device.h"

namespace plural::trainer {
namespace {

// Rows of logits at a time: two models' fp64 log-probabilities of 32,000 tokens stay below 150 MB.
constexpr std::int64_t kKlRows = 256;

double Entropy(const std::vector<double>& p) {
  double nats = 0.0;
  for (const double share : p) {
    if (share > 0.0) nats -= share * std::log(share);
  }
  return nats;
}

data::LabelledGroup LabelAll(const data::Group& group, std::string_view method) {
  return Label(MethodNamed(method), group, {.responses = 0}, 0);
}

}  // namespace

std::vector<double> SequenceLogP(const Decoder& model, const data::LabelledGroup& group,
                                 const data::PackSettings& pack) {
  const c10::NoGradGuard no_grad;
  std::vector<double> log_p(group.sequences.size());
  for (const data::RowPass& pass : data::PackGroups({&group, 1}, pack, 1.0)) {
    const PassFigures figures = ReadFigures(pass, RunPass(model, pass, ObjectiveSettings{}).values);
    for (std::size_t s = 0; s < pass.sequences.size(); ++s) {
      log_p[static_cast<std::size_t>(pass.sequences[s].sequence)] = figures.sequence_log_p[s];
    }
  }
  return log_p;
}

GroupFigures EvaluateGroup(const Decoder& model, const data::Group& group, bool targets,
                           const data::PackSettings& pack) {
  const data::LabelledGroup labelled = LabelAll(group, targets ? "distribution_matching" : "otmft");
  const std::vector<double> log_p = SequenceLogP(model, labelled, pack);
  GroupFigures figures;
  figures.sequences = static_cast<std::int64_t>(labelled.sequences.size());
  figures.response_tokens = labelled.positive_tokens;
  for (const double value : log_p) {
    figures.logprob_nats += value;
    // 1 - (1 - p)^n by logarithms: p is often far below the rounding of 1 - p.
    figures.expected_coverage += -std::expm1(kCoverageDraws * std::log1p(-std::exp(std::min(value, 0.0))));
  }
  if (targets) figures.targets = FiguresOfTargets(labelled, log_p);
  return figures;
}

PossibilityFigures FiguresOfPossibilities(const std::vector<std::vector<double>>& log_p) {
  const std::size_t responses = log_p.at(0).size();
  const auto numbers = static_cast<double>(log_p.size());
  std::vector<double> mixture(responses, 0.0);
  double mean_entropy = 0.0;
  for (const std::vector<double>& of_number : log_p) {
    const double top = *std::max_element(of_number.begin(), of_number.end());
    std::vector<double> q(responses);
    double total = 0.0;
    for (std::size_t j = 0; j < responses; ++j) total += q[j] = std::exp(of_number[j] - top);
    for (std::size_t j = 0; j < responses; ++j) mixture[j] += (q[j] /= total) / numbers;
    mean_entropy += Entropy(q) / numbers;
  }
  const double mixture_entropy = Entropy(mixture);
  return {mixture_entropy, mixture_entropy - mean_entropy};
}

std::optional<PossibilityFigures> EvaluatePossibilities(const Decoder& model, const data::Group& group,
                                                        const data::PackSettings& pack) {
  if (group.Possibilities() < 1 || group.responses.size() < 2) return std::nullopt;
  data::LabelledGroup all;
  all.group = group.index;
  for (int k = 1; k <= group.Possibilities(); ++k) {
    const data::SharedTokens prefix = data::PrefixOf(group, k);
    for (int j = 0; j < static_cast<int>(group.responses.size()); ++j) {
      all.sequences.push_back(data::SequenceOf(group, {.response = j, .possibility = k}, prefix));
    }
  }
  const std::vector<double> flat = SequenceLogP(model, all, pack);
  std::vector<std::vector<double>> log_p;
  const auto responses = static_cast<std::ptrdiff_t>(group.responses.size());
  for (auto at = flat.begin(); at != flat.end(); at += responses) log_p.emplace_back(at, at + responses);
  return FiguresOfPossibilities(log_p);
}

double TokenKl(const Decoder& from, const Decoder& to, const data::Group& group,
               const data::PackSettings& pack) {
  const c10::NoGradGuard no_grad;
  const data::LabelledGroup labelled = LabelAll(group, "otmft");
  double sum = 0.0;
  for (const data::RowPass& pass : data::PackGroups({&labelled, 1}, pack, 1.0)) {
    // A row is counted once for each sequence that passes through one of its edges.
    std::vector<std::int64_t> rows;
    std::vector<double> count;
    std::vector<std::size_t> slot_of_edge(pass.edges.size());
    for (std::size_t e = 0; e < pass.edges.size(); ++e) {
      if (rows.empty() || rows.back() != pass.edges[e].source) {
        rows.push_back(pass.edges[e].source);
        count.push_back(0.0);
      }
      slot_of_edge[e] = rows.size() - 1;
    }
    for (const std::int32_t edge : pass.path) count[slot_of_edge[static_cast<std::size_t>(edge)]] += 1.0;

    const RowNumbers source(std::move(rows), from.Device());
    const at::Tensor from_SE = HiddenOfSources(from, pass, source, {}).hidden_SE;
    const at::Tensor to_SE = HiddenOfSources(to, pass, source, {}).hidden_SE;
    const at::Tensor count_S = ToDevice(count, at::kDouble, from.Device());
    for (std::int64_t begin = 0; begin < from_SE.size(0); begin += kKlRows) {
      const std::int64_t length = std::min(kKlRows, from_SE.size(0) - begin);
      const at::Tensor p = at::log_softmax(from.Logits(from_SE.narrow(0, begin, length)), -1, at::kDouble);
      const at::Tensor q = at::log_softmax(to.Logits(to_SE.narrow(0, begin, length)), -1, at::kDouble);
      sum += ((p.exp() * (p - q)).sum(-1) * count_S.narrow(0, begin, length)).sum().item<double>();
    }
  }
  return sum;
}

std::optional<Interval> BootstrapRatio(std::span<const double> numerator,
                                       std::span<const double> denominator) {
  constexpr std::size_t kResamples = 1000;
  if (numerator.size() < 2) return std::nullopt;
  data::CounterRandom random{data::MixKey(0, data::Purpose::kBootstrap)};
  std::vector<double> ratios(kResamples);
  for (double& ratio : ratios) {
    double above = 0.0, below = 0.0;
    for (std::size_t draw = 0; draw < numerator.size(); ++draw) {
      const auto pick = static_cast<std::size_t>(random.Below(numerator.size()));
      above += numerator[pick];
      below += denominator[pick];
    }
    ratio = above / below;
  }
  std::sort(ratios.begin(), ratios.end());
  // The 2.5 % and 97.5 % order statistics of 1,000.
  return Interval{ratios[24], ratios[974]};
}

}  // namespace plural::trainer
