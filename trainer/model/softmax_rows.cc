#include "trainer/model/softmax_rows.h"

#include <ATen/ATen.h>

#include <cmath>
#include <limits>
#include <optional>

namespace plural::trainer {
namespace {

// Above it log(1 - p) is taken from the other tokens' own logsumexp; below, log1p(-p) is exact to rounding.
const double kSmallLogP = std::log(0.5);

at::Tensor TargetLogits(const at::Tensor& z_RV, const at::Tensor& row_E, const at::Tensor& target_E) {
  return z_RV.index({row_E, target_E}).to(at::kDouble);
}

}  // namespace

RowStatistics StatisticsOfRows(const at::Tensor& z_RV) {
  const at::Tensor lse_R1 = at::logsumexp(z_RV, 1, true);
  const at::Tensor log_p_RV = z_RV - lse_R1;
  return {lse_R1.squeeze(1).to(at::kDouble), (log_p_RV.exp() * log_p_RV).sum(1).neg_().to(at::kDouble)};
}

EdgeStatistics StatisticsOfEdges(const at::Tensor& z_RV, const RowStatistics& rows, const at::Tensor& row_E,
                                 const at::Tensor& target_E) {
  const at::Tensor z_E = TargetLogits(z_RV, row_E, target_E);
  const at::Tensor lse_E = rows.lse_R.index_select(0, row_E);
  at::Tensor lse_others_E = lse_E + at::log1p(-at::exp(z_E - lse_E));
  const at::Tensor likely = at::nonzero(z_E - lse_E > kSmallLogP).squeeze(1);
  if (likely.numel() > 0) {
    at::Tensor others = z_RV.index_select(0, row_E.index_select(0, likely));
    others.scatter_(1, target_E.index_select(0, likely).unsqueeze(1),
                    -std::numeric_limits<double>::infinity());
    lse_others_E.index_copy_(0, likely, at::logsumexp(others, 1).to(at::kDouble));
  }
  const at::Tensor odds_E = z_E - lse_others_E;  // log(p / (1 - p))
  return {at::log_sigmoid(odds_E), at::log_sigmoid(-odds_E)};
}

void RowGradient(at::Tensor& z_RV, const RowStatistics& rows, const RowCoefficients& coefficients,
                 const EdgeCoefficients& edges) {
  const auto column = [&z_RV](const at::Tensor& value_R) { return value_R.to(z_RV.dtype()).unsqueeze(1); };
  // The targets' values first, while z is there.
  const at::Tensor z_E = TargetLogits(z_RV, edges.row_E, edges.target_E);
  const auto of_edge = [&edges](const at::Tensor& value_R) { return value_R.index_select(0, edges.row_E); };
  const at::Tensor log_p_E = z_E - of_edge(rows.lse_R);
  const at::Tensor p_E = log_p_E.exp();
  at::Tensor gradient_E =
      (of_edge(coefficients.c_R) + edges.t_E) * p_E + edges.t_E * edges.log_one_minus_p_E.exp();

  at::Tensor tempered_RV;
  if (coefficients.a_R.defined()) {
    tempered_RV = at::softmax(z_RV / column(coefficients.b_R), 1).mul_(column(coefficients.a_R));
    gradient_E += tempered_RV.index({edges.row_E, edges.target_E}).to(at::kDouble);
  }
  z_RV.sub_(column(rows.lse_R));
  if (coefficients.h_R.defined()) {
    const at::Tensor h_R1 = column(coefficients.h_R);
    gradient_E += of_edge(coefficients.h_R) * p_E * (log_p_E + of_edge(rows.entropy_nats_R));
    const at::Tensor factor_RV =
        (z_RV + column(rows.entropy_nats_R)).mul_(h_R1).add_(column(coefficients.c_R));
    z_RV.exp_().mul_(factor_RV);
  } else {
    z_RV.exp_().mul_(column(coefficients.c_R));
  }
  if (tempered_RV.defined()) z_RV.add_(tempered_RV);
  z_RV.index_put_({edges.row_E, edges.target_E}, gradient_E.to(z_RV.dtype()));
}

}  // namespace plural::trainer
