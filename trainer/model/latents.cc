#include "trainer/model/latents.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/tensor.h>
#include <c10/core/GradMode.h>

#include <cmath>

#include "trainer/model/random_weights.h"
#include "trainer/ops/pointwise.h"

namespace plural::trainer {
namespace {

struct TableStatistics {
  std::vector<double> mean_E;
  double stddev = 0.0;  // of all entries around the mean of their column
};

// Sums in one order, whatever the number of threads: ranks must start from equal bits.
TableStatistics StatisticsOf(const at::Tensor& embedding_VE) {
  const at::Tensor host = embedding_VE.detach().to(at::kCPU, at::kDouble).contiguous();
  const auto rows = host.size(0);
  const auto columns = static_cast<std::size_t>(host.size(1));
  TableStatistics found;
  found.mean_E.assign(columns, 0.0);
  std::vector<double> squares(columns, 0.0);
  const double* value = host.const_data_ptr<double>();
  for (std::int64_t row = 0; row < rows; ++row) {
    for (std::size_t column = 0; column < columns; ++column) found.mean_E[column] += *value++;
  }
  for (double& mean : found.mean_E) mean /= static_cast<double>(rows);
  value = host.const_data_ptr<double>();
  for (std::int64_t row = 0; row < rows; ++row) {
    for (std::size_t column = 0; column < columns; ++column) {
      const double distance = *value++ - found.mean_E[column];
      squares[column] += distance * distance;
    }
  }
  double sum = 0.0;
  for (const double square : squares) sum += square;
  found.stddev = std::sqrt(sum / static_cast<double>(host.numel()));
  return found;
}

}  // namespace

Latents Latents::Allocate(std::int64_t latents, std::int64_t hidden_size, const at::TensorOptions& options) {
  return {.table_KE = at::empty({latents, hidden_size}, options),
          .query_E = at::empty({hidden_size}, options),
          .recognition_weight_KE = at::empty({latents, hidden_size}, options),
          .recognition_bias_K = at::empty({latents}, options),
          .bow_dense_EE = at::empty({hidden_size, hidden_size}, options),
          .bow_norm_E = at::empty({hidden_size}, options)};
}

void Latents::Initialize(std::uint64_t seed, const at::Tensor& embedding_VE, double embedding_scale,
                         const at::Tensor& final_norm_E, double initializer_range) {
  const TableStatistics tokens = StatisticsOf(embedding_VE);
  const c10::AutoGradMode no_grad(false);
  const at::Tensor mean_E = at::tensor(at::ArrayRef<double>(tokens.mean_E), at::kDouble)
                                .mul_(embedding_scale)
                                .to(table_KE.options());
  for (const auto& [name, tensor] : Parameters()) {
    const bool like_a_token = tensor.is_same(table_KE) || tensor.is_same(query_E);
    FillNormal(tensor, like_a_token ? embedding_scale * tokens.stddev : initializer_range,
               DrawsFor(seed, name));
    if (like_a_token) tensor.add_(mean_E);
  }
  recognition_bias_K.zero_();
  bow_norm_E.copy_(final_norm_E);
}

std::vector<dist::NamedTensor> Latents::Parameters() const {
  const std::string prefix = kLatentPrefix;
  return {{prefix + "table", table_KE},
          {prefix + "query", query_E},
          {prefix + "recognition.weight", recognition_weight_KE},
          {prefix + "recognition.bias", recognition_bias_K},
          {prefix + "bow.dense.weight", bow_dense_EE},
          {prefix + "bow.norm.weight", bow_norm_E}};
}

at::Tensor Latents::Recognize(const at::Tensor& hidden_RE) const {
  return at::addmm(recognition_bias_K, hidden_RE.to(recognition_bias_K.dtype()), recognition_weight_KE.t());
}

at::Tensor Latents::Bow(const at::Tensor& hidden_RE, double rms_norm_eps) const {
  const at::Tensor dense_RE = at::mm(hidden_RE.to(bow_dense_EE.dtype()), bow_dense_EE.t());
  return RmsNorm(at::gelu(dense_RE), bow_norm_E, {.eps = rms_norm_eps}).to(hidden_RE.dtype());
}

std::int64_t LatentParameterCount(std::int64_t latents, std::int64_t hidden_size) {
  return 2 * latents * hidden_size + latents + hidden_size * hidden_size + 2 * hidden_size;
}

}  // namespace plural::trainer
