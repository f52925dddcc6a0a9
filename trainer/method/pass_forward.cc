#include "trainer/method/pass_forward.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/index_add.h>
#include <ATen/ops/index_copy.h>
#include <ATen/ops/zeros.h>

#include <utility>

#include "data/random.h"
#include "trainer/ops/attention.h"
#include "trainer/ops/part_scope.h"
#include "trainer/ops/to_device.h"

namespace plural::trainer {
namespace {

Dropout DropoutOf(const data::RowPass& pass, std::optional<std::uint64_t> key, at::Device device) {
  if (!key) return {};
  Dropout dropout{at::empty({static_cast<std::int64_t>(pass.path_key.size())}, at::kLong)};
  auto* row_key = dropout.row_key_R.data_ptr<std::int64_t>();
  for (std::size_t row = 0; row < pass.path_key.size(); ++row) {
    row_key[row] = static_cast<std::int64_t>(data::MixKey(*key, data::Purpose::kDropout, pass.path_key[row]));
  }
  if (device.is_cuda()) dropout.row_key_on_gpu_R = ToDevice(dropout.row_key_R, device);
  return dropout;
}

}  // namespace

PassEdges EdgesOf(const data::RowPass& pass, bool weighted_only, at::Device device) {
  const PartScope data(Part::kData);
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
  const auto rows = static_cast<std::int64_t>(row.size());
  return {RowNumbers(std::move(row), device), EdgeList(rows, edge_row, target, device),
          ToDevice(likelihood, at::kDouble, device), ToDevice(unlikelihood, at::kDouble, device)};
}

SourceStates HiddenOfSources(const Decoder& model, const data::RowPass& pass, const RowNumbers& source,
                             std::optional<std::uint64_t> dropout_key, const InjectedRows& injected,
                             bool recompute) {
  const at::Device device = model.Device();
  const at::Tensor token_N = ToDevice(pass.token, at::kInt, device).to(at::kLong);
  const at::Tensor position_N = ToDevice(pass.position, at::kInt, device).to(at::kLong);
  const std::shared_ptr<Attention> attention =
      MakePassAttention(pass, model.Config().Attention(), model.DType(), device);
  const Dropout dropout = DropoutOf(pass, dropout_key, device);

  at::Tensor embedding_NE;
  if (injected.row_I.defined()) {
    // Placeholders are negative: any token's embedding will do, since it is overwritten.
    embedding_NE = at::index_copy(model.Embed(token_N.clamp_min(0)), 0, injected.row_I,
                                  injected.embedding_IE.to(model.DType()));
  } else {
    embedding_NE = model.Embed(token_N);
  }
  const at::Tensor hidden_SE =
      recompute ? model.HiddenRecomputed(embedding_NE, position_N, attention, source, dropout)
                : model.Hidden(embedding_NE, position_N, *attention, source, dropout);
  return {hidden_SE, dropout.At(static_cast<std::uint64_t>(model.Config().num_hidden_layers)).Rows(source)};
}

at::Tensor SequenceSums(const std::vector<std::int32_t>& path, const std::vector<std::int32_t>& path_offset,
                        const at::Tensor& value_E) {
  const std::size_t sequences = path_offset.size() - 1;
  std::vector<std::int32_t> sequence_of(path.size());
  for (std::size_t q = 0; q < sequences; ++q) {
    for (std::int32_t i = path_offset[q]; i < path_offset[q + 1]; ++i) {
      sequence_of[static_cast<std::size_t>(i)] = static_cast<std::int32_t>(q);
    }
  }
  const at::Tensor sums = at::zeros({static_cast<std::int64_t>(sequences)}, value_E.options());
  return at::index_add(sums, 0, ToDevice(sequence_of, at::kInt, value_E.device()),
                       value_E.index_select(0, ToDevice(path, at::kInt, value_E.device())));
}

}  // namespace plural::trainer
