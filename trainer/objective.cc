#include "trainer/objective.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>

#include <cmath>
#include <stdexcept>
#include <string>

#include "trainer/pass_forward.h"

namespace plural::trainer {
namespace {

std::vector<double> LogProbOfSequences(const data::RowPass& pass, const at::Tensor& log_p_E) {
  const at::Tensor host = log_p_E.detach().to(at::kCPU).contiguous();
  const double* log_p = host.const_data_ptr<double>();
  std::vector<double> sums(pass.sequences.size(), 0.0);
  for (std::size_t s = 0; s < sums.size(); ++s) {
    for (std::int32_t i = pass.path_offset[s]; i < pass.path_offset[s + 1]; ++i)
      sums[s] += log_p[pass.path[i]];
  }
  return sums;
}

}  // namespace

PassResult RunPass(const Decoder& model, const data::RowPass& pass, const ObjectiveSettings& settings,
                   const HeadSettings& head) {
  PassEdges edges = EdgesOf(pass, settings.weighted_edges_only, model.Device());
  const SourceStates states =
      HiddenOfSources(model, pass, edges.list.row, settings.dropout_key, {}, settings.recompute);
  edges.list.row = at::Tensor();  // the hidden states are those rows already
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
  result.likelihood = likelihood.item<double>();
  result.unlikelihood = unlikelihood.item<double>();
  if (!settings.weighted_edges_only) result.sequence_log_p = LogProbOfSequences(pass, edge.log_p);
  return result;
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
