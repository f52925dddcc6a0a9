#include "trainer/method/objective.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>

#include <cmath>
#include <stdexcept>
#include <string>

#include "trainer/method/pass_forward.h"
#include "trainer/ops/from_device.h"

namespace plural::trainer {
namespace {

std::vector<double> LogProbOfSequences(const data::RowPass& pass, const std::vector<double>& log_p_E) {
  std::vector<double> sums(pass.sequences.size(), 0.0);
  for (std::size_t s = 0; s < sums.size(); ++s) {
    for (std::int32_t i = pass.path_offset[s]; i < pass.path_offset[s + 1]; ++i)
      sums[s] += log_p_E[pass.path[i]];
  }
  return sums;
}

}  // namespace

PassResult RunPass(const Decoder& model, const data::RowPass& pass, const ObjectiveSettings& settings,
                   const HeadSettings& head) {
  const PassEdges edges = EdgesOf(pass, settings.weighted_edges_only, model.Device());
  const SourceStates states =
      HiddenOfSources(model, pass, edges.source, settings.dropout_key, {}, settings.recompute);
  HeadSettings head_settings = head;
  head_settings.dropout = states.head_dropout;
  const EdgeLogProbs edge = EdgeLogProb(states.hidden_SE, model.Head(), edges.list, head_settings);

  // clamp_min passes no gradient below its bound, which is what the reference code's clamp does.
  const at::Tensor log_one_minus_p =
      settings.unlikelihood_clamp > 0.0
          ? edge.log_one_minus_p.clamp_min(std::log(settings.unlikelihood_clamp))
          : edge.log_one_minus_p;
  const at::Tensor likelihood = (edges.likelihood_E * edge.log_p).sum().neg();
  // Unpenalised edges are masked, not multiplied by 0: their log(1-p) may be -inf.
  const at::Tensor unlikelihood =
      (edges.unlikelihood_E * log_one_minus_p.masked_fill(edges.unlikelihood_E == 0.0, 0.0)).sum().neg();

  PassResult result;
  result.loss = likelihood + unlikelihood;
  result.values = {likelihood.detach(), unlikelihood.detach(), {}};
  if (!settings.weighted_edges_only) result.values.log_p_E = edge.log_p.detach();
  return result;
}

std::vector<PassFigures> ReadFigures(std::span<const data::RowPass> passes,
                                     const std::vector<PassValues>& values) {
  std::vector<at::Tensor> tensors;
  for (const PassValues& of_pass : values) {
    tensors.insert(tensors.end(), {of_pass.likelihood, of_pass.unlikelihood, of_pass.log_p_E});
  }
  const std::vector<std::vector<double>> read = ReadTogether(tensors);
  std::vector<PassFigures> figures(values.size());
  for (std::size_t i = 0; i < figures.size(); ++i) {
    figures[i].likelihood = read[3 * i][0];
    figures[i].unlikelihood = read[3 * i + 1][0];
    if (values[i].log_p_E.defined()) {
      figures[i].sequence_log_p = LogProbOfSequences(passes[i], read[3 * i + 2]);
    }
  }
  return figures;
}

PassFigures ReadFigures(const data::RowPass& pass, const PassValues& values) {
  return ReadFigures({&pass, 1}, std::vector{values})[0];
}

TargetFigures FiguresOfTargets(const data::LabelledGroup& group, const std::vector<double>& sequence_log_p) {
  if (sequence_log_p.size() != group.sequences.size()) {
    throw std::logic_error("FiguresOfTargets: " + std::to_string(sequence_log_p.size()) +
                           " log-probabilities for " + std::to_string(group.sequences.size()) + " sequences");
  }
  TargetFigures figures;
  for (std::size_t s = 0; s < sequence_log_p.size(); ++s) {
    const double target = group.sequences[s].target;
    if (target > 0.0) {  // 0 log 0 = 0; p = 0 under a positive target is infinite, and said so
      figures.cross_entropy_nats -= target * sequence_log_p[s];
      figures.target_entropy_nats -= target * std::log(target);
    }
    figures.target_mass += std::exp(sequence_log_p[s]);
  }
  figures.kl_nats = figures.cross_entropy_nats - figures.target_entropy_nats;
  for (const double log_p : sequence_log_p) {
    const double log_share = log_p - std::log(figures.target_mass);
    if (std::isfinite(log_share)) figures.entropy_nats -= std::exp(log_share) * log_share;
  }
  return figures;
}

}  // namespace plural::trainer
