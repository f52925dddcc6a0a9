#include "trainer/method/objective.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>

#include <cmath>

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

std::vector<at::Tensor> LikelihoodAndUnlikelihood(const EdgeValues& edges, const MethodSettings& settings) {
  // clamp_min passes no gradient below its bound, which is what the reference code's clamp does.
  const double clamp = settings.unlikelihood_clamp;
  const at::Tensor log_one_minus_p =
      clamp > 0.0 ? edges.log_one_minus_p_E.clamp_min(std::log(clamp)) : edges.log_one_minus_p_E;
  // Unpenalised edges are masked, not multiplied by 0: their log(1-p) may be -inf.
  at::Tensor unlikelihood =
      (edges.unlikelihood_E * log_one_minus_p.masked_fill(edges.unlikelihood_E == 0.0, 0.0)).sum().neg();
  if (settings.unlikelihood_scale != 1.0) unlikelihood = unlikelihood * settings.unlikelihood_scale;
  return {(edges.likelihood_E * edges.log_p_E).sum().neg(), unlikelihood};
}

PassResult RunPass(const Decoder& model, const data::RowPass& pass, const ObjectiveSettings& settings,
                   const HeadSettings& head) {
  const PassEdges edges = EdgesOf(pass, settings.weighted_edges_only, model.Device());
  const SourceStates states =
      HiddenOfSources(model, pass, edges.source, settings.dropout_key, {}, settings.recompute);
  HeadSettings head_settings = head;
  head_settings.dropout = states.head_dropout;
  const bool own_loss = settings.method != nullptr && settings.method->edge_loss != nullptr;
  if (own_loss && settings.method->temperature != nullptr) {
    head_settings.temperature = settings.method->temperature(settings.values);
  }
  const EdgeLogProbs edge = EdgeLogProb(states.hidden_SE, model.Head(), edges.list, head_settings);
  const EdgeValues values{edges.likelihood_E,   edges.unlikelihood_E,  edge.log_p,
                          edge.log_one_minus_p, edge.tempered_log_p_E, edge.tempered_entropy_nats_E};
  const std::vector<at::Tensor> terms = own_loss ? settings.method->edge_loss(values, settings.values)
                                                 : LikelihoodAndUnlikelihood(values, settings.values);
  PassResult result;
  for (const at::Tensor& term : terms) {
    result.loss = result.loss.defined() ? result.loss + term : term;
    result.values.terms.push_back(term.detach());
  }
  if (!settings.weighted_edges_only) result.values.log_p_E = edge.log_p.detach();
  return result;
}

std::vector<PassFigures> ReadFigures(std::span<const data::RowPass> passes,
                                     const std::vector<PassValues>& values) {
  std::vector<at::Tensor> tensors;
  for (const PassValues& of_pass : values) {
    tensors.insert(tensors.end(), of_pass.terms.begin(), of_pass.terms.end());
    tensors.push_back(of_pass.log_p_E);
  }
  const std::vector<std::vector<double>> read = ReadTogether(tensors);
  std::vector<PassFigures> figures(values.size());
  std::size_t next = 0;
  for (std::size_t i = 0; i < figures.size(); ++i) {
    for (std::size_t term = 0; term < values[i].terms.size(); ++term) {
      figures[i].terms.push_back(read[next++][0]);
    }
    if (values[i].log_p_E.defined()) figures[i].sequence_log_p = LogProbOfSequences(passes[i], read[next]);
    ++next;
  }
  return figures;
}

PassFigures ReadFigures(const data::RowPass& pass, const PassValues& values) {
  return ReadFigures({&pass, 1}, std::vector{values})[0];
}

}  // namespace plural::trainer
