// Softmax rows: statistics of logits and the one gradient formula that every objective shares.
//
// Owns: the passes over [rows, vocabulary] values. Does not own: the projection that makes logits
// (head.h), what the coefficients mean (objective.h). Thread rule: pure functions, one thread.
//
// Shape letters: R rows, V vocabulary, E edges. Statistics and coefficients are fp64 on the logits' device:
// they are few, and 1 - p needs the digits.
#pragma once

#include <ATen/core/TensorBody.h>

namespace plural::trainer {

struct CudaKernels;

// Statistics of z / temperature.
struct RowStatistics {
  at::Tensor lse_R;           // log sum exp
  at::Tensor entropy_nats_R;  // of the softmax
};
RowStatistics StatisticsOfRows(const at::Tensor& z_RV, double temperature = 1.0);

struct EdgeStatistics {
  at::Tensor lse_R;  // of all rows
  at::Tensor log_p_E;
  at::Tensor log_one_minus_p_E;  // from the logsumexp of the other tokens, so finite where 1 - p underflows
};
// row_E: row of each edge in z; target_E: its token. On a GPU one kernel reads z, once.
EdgeStatistics StatisticsOfEdges(const at::Tensor& z_RV, const at::Tensor& row_E, const at::Tensor& target_E,
                                 const CudaKernels* kernels = nullptr);

struct TemperedStatistics {
  at::Tensor log_p_E;         // log softmax(z / b) of the edge's token
  at::Tensor entropy_nats_E;  // of softmax(z / b) in its row
};
TemperedStatistics TemperedStatisticsOfEdges(const at::Tensor& z_RV, double b, const at::Tensor& row_E,
                                             const at::Tensor& target_E);

// Coefficients of dL/dz = a softmax(z / b) + c p + scatter(t at target).
struct RowCoefficients {
  at::Tensor a_R, b_R;  // undefined: a = 0
  at::Tensor c_R;
};
struct EdgeCoefficients {
  at::Tensor row_E, target_E;
  at::Tensor t_E;
  at::Tensor log_one_minus_p_E;
};
// Overwrites z, whose logsumexp is `lse_R`, with the gradient. Precondition: edges are ordered by row, each
// (row, target) occurs once. With `softcap` > 0, z are logits that SoftCap (pointwise.h) has bounded, and the
// gradient is that of the unbounded ones: times 1 - (z / softcap)^2. At a target, c p + t is computed as (c +
// t) p + t (1 - p) with 1 - p from its logarithm: t = -c is the common case, and c p + t would lose all
// digits where p is close to 1.
void RowGradient(at::Tensor& z_RV, const at::Tensor& lse_R, const RowCoefficients& coefficients,
                 const EdgeCoefficients& edges, double softcap = 0.0);

// The same functions in libtorch's operators, for tensors without host loops: on any device, with
// shapes that depend on no value, so that the host waits for none.
namespace operators {
RowStatistics StatisticsOfRows(const at::Tensor& z_RV, double temperature = 1.0);
EdgeStatistics StatisticsOfEdges(const at::Tensor& z_RV, const at::Tensor& row_E, const at::Tensor& target_E);
void RowGradient(at::Tensor& z_RV, const at::Tensor& lse_R, const RowCoefficients& coefficients,
                 const EdgeCoefficients& edges, double softcap = 0.0);
}  // namespace operators

}  // namespace plural::trainer
