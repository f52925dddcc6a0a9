#include "trainer/ops/softmax_rows.h"

#include <ATen/Dispatch.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/log1p.h>
#include <ATen/ops/log_sigmoid.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/nonzero.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include <cmath>
#include <limits>
#include <utility>

#include "trainer/kernels/host_loops.h"
#include "trainer/ops/softmax_rows_cuda.h"

namespace plural::trainer {
namespace {

// Above this, log(1 - p) is taken from the other tokens' own logsumexp; below, log1p(-p) is exact
// to rounding.
const double kSmallLogP = std::log(0.5);

// True where the host loops apply; everything else takes the ATen expressions.
bool HasHostLoops(const at::Tensor& x) {
  return x.is_cpu() && (x.scalar_type() == at::kFloat || x.scalar_type() == at::kDouble);
}

at::Tensor TargetLogits(const at::Tensor& z_RV, const at::Tensor& row_E, const at::Tensor& target_E) {
  return z_RV.index({row_E, target_E}).to(at::kDouble);
}

// For the edges in `likely`: logsumexp of their row without their token, which is masked meanwhile.
void LseOfOthersOnHost(const at::Tensor& z_RV, const at::Tensor& row_E, const at::Tensor& target_E,
                       const at::Tensor& likely, const at::Tensor& lse_others_E) {
  AT_DISPATCH_FLOATING_TYPES(z_RV.scalar_type(), "lse of others", [&] {
    for (std::int64_t i = 0; i < likely.size(0); ++i) {
      const std::int64_t edge = likely.const_data_ptr<std::int64_t>()[i];
      scalar_t* z =
          z_RV.mutable_data_ptr<scalar_t>() + row_E.const_data_ptr<std::int64_t>()[edge] * z_RV.size(1);
      scalar_t& target = z[target_E.const_data_ptr<std::int64_t>()[edge]];
      const scalar_t kept = std::exchange(target, -std::numeric_limits<scalar_t>::infinity());
      lse_others_E.mutable_data_ptr<double>()[edge] = host::LseOfRow(z, z_RV.size(1));
      target = kept;
    }
  });
}

double ValueOr(const at::Tensor& values_R, std::int64_t row, double otherwise) {
  return values_R.defined() ? values_R.const_data_ptr<double>()[row] : otherwise;
}

// Overwrites z with all terms but the scatter. Returns those of a at the targets, in fp64.
at::Tensor DenseGradientOnHost(const at::Tensor& z_RV, const at::Tensor& lse_R, const RowCoefficients& k,
                               const EdgeCoefficients& edges, const at::Tensor& z_E, double softcap) {
  const at::Tensor added_E = at::zeros_like(z_E);
  const auto* edge_row = edges.row_E.const_data_ptr<std::int64_t>();
  std::int64_t edge = 0;
  AT_DISPATCH_FLOATING_TYPES(z_RV.scalar_type(), "row gradient", [&] {
    for (std::int64_t r = 0; r < z_RV.size(0); ++r) {
      auto* z = z_RV.mutable_data_ptr<scalar_t>() + r * z_RV.size(1);
      host::RowGradientTerms terms{.lse = ValueOr(lse_R, r, 0.0),
                                   .a = ValueOr(k.a_R, r, 0.0),
                                   .b = ValueOr(k.b_R, r, 1.0),
                                   .c = ValueOr(k.c_R, r, 0.0),
                                   .softcap = softcap};
      if (terms.a != 0.0) terms.lse_b = host::LseOfRow(z, z_RV.size(1), terms.b);
      for (; edge < edges.row_E.size(0) && edge_row[edge] == r; ++edge) {
        const double logit = z_E.const_data_ptr<double>()[edge];
        double& added = added_E.mutable_data_ptr<double>()[edge];
        if (terms.a != 0.0) added += terms.a * std::exp(logit / terms.b - terms.lse_b);
      }
      host::RowGradient(z, z_RV.size(1), terms);
    }
  });
  return added_E;
}

// The gradient at an edge's target without the term of a, and the values that this needs.
struct TargetTerms {
  at::Tensor z_E, gradient_E;
};
TargetTerms TermsOfTargets(const at::Tensor& z_RV, const at::Tensor& lse_R, const RowCoefficients& k,
                           const EdgeCoefficients& edges) {
  TargetTerms terms;
  terms.z_E = TargetLogits(z_RV, edges.row_E, edges.target_E);
  const at::Tensor p_E = (terms.z_E - lse_R.index_select(0, edges.row_E)).exp();
  terms.gradient_E =
      (k.c_R.index_select(0, edges.row_E) + edges.t_E) * p_E + edges.t_E * edges.log_one_minus_p_E.exp();
  return terms;
}

EdgeStatistics FromOdds(const at::Tensor& lse_R, const at::Tensor& odds_E) {  // log(p / (1 - p))
  return {lse_R, at::log_sigmoid(odds_E), at::log_sigmoid(-odds_E)};
}

// The logsumexp of each row, its largest token, and the logsumexp of the others.
struct TopTokens {
  at::Tensor lse_R, column_R, lse_of_others_R;
};
// Only the largest token of a row can have p > 1/2.
EdgeStatistics OfEdges(const TopTokens& top, const at::Tensor& z_RV, const at::Tensor& row_E,
                       const at::Tensor& target_E) {
  const at::Tensor z_E = TargetLogits(z_RV, row_E, target_E);
  const at::Tensor lse_E = top.lse_R.index_select(0, row_E);
  const at::Tensor is_top_E = top.column_R.index_select(0, row_E) == target_E;
  const at::Tensor likely_E = (z_E - lse_E > kSmallLogP) & is_top_E;
  const at::Tensor lse_others_E = at::where(likely_E, top.lse_of_others_R.index_select(0, row_E),
                                            lse_E + at::log1p(-at::exp(z_E - lse_E)));
  return FromOdds(top.lse_R, z_E - lse_others_E);
}

at::Tensor LseOnHost(const at::Tensor& z_RV) {
  const at::Tensor lse_R = at::empty({z_RV.size(0)}, z_RV.options().dtype(at::kDouble));
  AT_DISPATCH_FLOATING_TYPES(z_RV.scalar_type(), "lse of rows", [&] {
    for (std::int64_t r = 0; r < z_RV.size(0); ++r) {
      lse_R.mutable_data_ptr<double>()[r] =
          host::LseOfRow(z_RV.const_data_ptr<scalar_t>() + r * z_RV.size(1), z_RV.size(1));
    }
  });
  return lse_R;
}

}  // namespace

RowStatistics StatisticsOfRows(const at::Tensor& z_RV, double temperature) {
  if (const auto by_kernel = StatisticsOfRowsOnCuda(z_RV, temperature)) {
    return {by_kernel->lse_R, by_kernel->entropy_nats_R};
  }
  if (!HasHostLoops(z_RV)) return operators::StatisticsOfRows(z_RV, temperature);
  const at::Tensor lse_R = at::empty({z_RV.size(0)}, z_RV.options().dtype(at::kDouble));
  const at::Tensor entropy_R = at::empty_like(lse_R);
  AT_DISPATCH_FLOATING_TYPES(z_RV.scalar_type(), "row statistics", [&] {
    for (std::int64_t r = 0; r < z_RV.size(0); ++r) {
      const auto row = host::StatisticsOfRow(z_RV.const_data_ptr<scalar_t>() + r * z_RV.size(1), z_RV.size(1),
                                             temperature);
      lse_R.mutable_data_ptr<double>()[r] = row.lse;
      entropy_R.mutable_data_ptr<double>()[r] = row.entropy_nats;
    }
  });
  return {lse_R, entropy_R};
}

EdgeStatistics StatisticsOfEdges(const at::Tensor& z_RV, const at::Tensor& row_E, const at::Tensor& target_E,
                                 const CudaKernels* kernels) {
  if (const auto top = StatisticsOfRowsOnCuda(z_RV, 1.0, kernels)) {
    return OfEdges({top->lse_R, top->column_R, top->lse_of_others_R}, z_RV, row_E, target_E);
  }
  if (!HasHostLoops(z_RV)) return operators::StatisticsOfEdges(z_RV, row_E, target_E);
  const at::Tensor lse_R = LseOnHost(z_RV);
  const at::Tensor z_E = TargetLogits(z_RV, row_E, target_E);
  const at::Tensor lse_E = lse_R.index_select(0, row_E);
  const at::Tensor lse_others_E = lse_E + at::log1p(-at::exp(z_E - lse_E));
  LseOfOthersOnHost(z_RV, row_E, target_E, at::nonzero(z_E - lse_E > kSmallLogP).squeeze(1), lse_others_E);
  return FromOdds(lse_R, z_E - lse_others_E);
}

TemperedStatistics TemperedStatisticsOfEdges(const at::Tensor& z_RV, double b, const at::Tensor& row_E,
                                             const at::Tensor& target_E) {
  const RowStatistics rows = StatisticsOfRows(z_RV, b);
  return {TargetLogits(z_RV, row_E, target_E) / b - rows.lse_R.index_select(0, row_E),
          rows.entropy_nats_R.index_select(0, row_E)};
}

void RowGradient(at::Tensor& z_RV, const at::Tensor& lse_R, const RowCoefficients& coefficients,
                 const EdgeCoefficients& edges, double softcap) {
  const bool by_kernel = !coefficients.a_R.defined() && RowGradientServes(z_RV);
  if (!by_kernel && !HasHostLoops(z_RV)) {
    return operators::RowGradient(z_RV, lse_R, coefficients, edges, softcap);
  }
  TargetTerms at_targets = TermsOfTargets(z_RV, lse_R, coefficients, edges);  // before z changes
  at::Tensor& gradient_E = at_targets.gradient_E;
  if (by_kernel) {
    RowGradientOnGpu(z_RV, lse_R, coefficients.c_R, softcap);
  } else {
    gradient_E += DenseGradientOnHost(z_RV, lse_R, coefficients, edges, at_targets.z_E, softcap);
  }
  if (softcap > 0.0) gradient_E *= 1.0 - (at_targets.z_E / softcap).square();
  z_RV.index_put_({edges.row_E, edges.target_E}, gradient_E.to(z_RV.dtype()));
}

namespace operators {

RowStatistics StatisticsOfRows(const at::Tensor& z_RV, double temperature) {
  const at::Tensor scaled_RV = temperature == 1.0 ? z_RV : z_RV / temperature;
  const at::Tensor lse_R1 = at::logsumexp(scaled_RV, 1, true);
  const at::Tensor log_p_RV = scaled_RV - lse_R1;
  return {lse_R1.squeeze(1).to(at::kDouble), (log_p_RV.exp() * log_p_RV).sum(1).neg_().to(at::kDouble)};
}

// The logsumexp of the others is computed once per row, with the largest token masked.
EdgeStatistics StatisticsOfEdges(const at::Tensor& z_RV, const at::Tensor& row_E,
                                 const at::Tensor& target_E) {
  const at::Tensor lse_R = at::logsumexp(z_RV, 1).to(at::kDouble);
  const at::Tensor top_R1 = z_RV.argmax(1, true);
  const at::Tensor z_top_R1 = z_RV.gather(1, top_R1);
  z_RV.scatter_(1, top_R1, -std::numeric_limits<double>::infinity());
  const at::Tensor lse_below_R = at::logsumexp(z_RV, 1).to(at::kDouble);
  z_RV.scatter_(1, top_R1, z_top_R1);
  return OfEdges({lse_R, top_R1.squeeze(1), lse_below_R}, z_RV, row_E, target_E);
}

void RowGradient(at::Tensor& z_RV, const at::Tensor& lse_R, const RowCoefficients& coefficients,
                 const EdgeCoefficients& edges, double softcap) {
  const auto column = [&z_RV](const at::Tensor& value_R) { return value_R.to(z_RV.dtype()).unsqueeze(1); };
  TargetTerms at_targets = TermsOfTargets(z_RV, lse_R, coefficients, edges);  // before z changes
  at::Tensor& gradient_E = at_targets.gradient_E;
  at::Tensor slope_RV, tempered_RV;
  if (softcap > 0.0) slope_RV = 1.0 - (z_RV / softcap).square_();
  if (coefficients.a_R.defined()) {
    tempered_RV = at::softmax(z_RV / column(coefficients.b_R), 1).mul_(column(coefficients.a_R));
    gradient_E += tempered_RV.index({edges.row_E, edges.target_E}).to(at::kDouble);
  }
  z_RV.sub_(column(lse_R)).exp_().mul_(column(coefficients.c_R));
  if (tempered_RV.defined()) z_RV.add_(tempered_RV);
  z_RV.index_put_({edges.row_E, edges.target_E}, gradient_E.to(z_RV.dtype()));
  if (slope_RV.defined()) z_RV.mul_(slope_RV);
}

}  // namespace operators
}  // namespace plural::trainer
