#include "trainer/objective.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>

#include <cmath>
#include <stdexcept>
#include <string>

#include "data/random.h"
#include "trainer/model/attention.h"

namespace plural::trainer {
namespace {

// The pass's edges, in their order, as the head and the loss read them.
struct PassEdges {
  EdgeList list;
  at::Tensor likelihood_E, unlikelihood_E;  // fp64
};

template <class T>
at::Tensor ToDevice(const std::vector<T>& values, at::ScalarType dtype, at::Device device) {
  return at::tensor(at::ArrayRef<T>(values), dtype).to(device);
}

PassEdges EdgesOf(const data::RowPass& pass, bool weighted_only, at::Device device) {
  std::vector<std::int64_t> row, edge_row, target;
  std::vector<double> likelihood, unlikelihood;
  for (const data::Edge& edge : pass.edges) {
    if (weighted_only && edge.likelihood == 0.0 && edge.unlikelihood == 0.0) continue;
    if (row.empty() || row.back() != edge.source) row.push_back(edge.source);
    edge_row.push_back(static_cast<std::int64_t>(row.size()) - 1);
    target.push_back(edge.target);
    likelihood.push_back(edge.likelihood);
    unlikelihood.push_back(edge.unlikelihood);
  }
  return {{ToDevice(row, at::kLong, device), ToDevice(edge_row, at::kLong, device),
           ToDevice(target, at::kLong, device)},
          ToDevice(likelihood, at::kDouble, device),
          ToDevice(unlikelihood, at::kDouble, device)};
}

std::vector<double> SequenceSums(const data::RowPass& pass, const at::Tensor& log_p_E) {
  const at::Tensor host = log_p_E.detach().to(at::kCPU).contiguous();
  const double* log_p = host.const_data_ptr<double>();
  std::vector<double> sums(pass.sequences.size(), 0.0);
  for (std::size_t s = 0; s < sums.size(); ++s) {
    for (std::int32_t i = pass.path_offset[s]; i < pass.path_offset[s + 1]; ++i)
      sums[s] += log_p[pass.path[i]];
  }
  return sums;
}

Dropout DropoutOf(const data::RowPass& pass, std::optional<std::uint64_t> key) {
  if (!key) return {};
  Dropout dropout{at::empty({static_cast<std::int64_t>(pass.path_key.size())}, at::kLong)};
  auto* row_key = dropout.row_key_R.data_ptr<std::int64_t>();
  for (std::size_t row = 0; row < pass.path_key.size(); ++row) {
    row_key[row] = static_cast<std::int64_t>(data::MixKey(*key, data::Purpose::kDropout, pass.path_key[row]));
  }
  return dropout;
}

}  // namespace

PassResult RunPass(const Decoder& model, const data::RowPass& pass, const ObjectiveSettings& settings,
                   const HeadSettings& head) {
  const at::Device device = model.Device();
  PassEdges edges = EdgesOf(pass, settings.weighted_edges_only, device);
  const at::Tensor token_N = ToDevice(pass.token, at::kInt, device).to(at::kLong);
  const at::Tensor position_N = ToDevice(pass.position, at::kInt, device).to(at::kLong);
  const auto attention = MakePassAttention(pass, model.Config().sliding_window, model.DType(), device);

  const Dropout dropout = DropoutOf(pass, settings.dropout_key);
  const at::Tensor source_S = edges.list.row;
  const at::Tensor hidden_SE =
      model.Hidden(model.Embed(token_N), position_N, *attention, edges.list.row, dropout);
  edges.list.row = at::Tensor();  // the hidden states are those rows already
  HeadSettings head_settings = head;
  head_settings.dropout =
      dropout.At(static_cast<std::uint64_t>(model.Config().num_hidden_layers)).Rows(source_S);
  const EdgeLogProbs edge = EdgeLogProb(hidden_SE, model.Head(), edges.list, head_settings);

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
  if (!settings.weighted_edges_only) result.sequence_log_p = SequenceSums(pass, edge.log_p);
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
