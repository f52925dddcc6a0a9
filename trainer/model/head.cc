#include "trainer/model/head.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <stdexcept>
#include <vector>

#include "trainer/kernels/dtypes.h"
#include "trainer/ops/multiply.h"
#include "trainer/ops/part_scope.h"
#include "trainer/ops/pointwise.h"
#include "trainer/ops/softmax_rows.h"
#include "trainer/ops/to_device.h"

namespace plural::trainer {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct Chunk {
  std::int64_t row = 0, rows = 0;    // source rows
  std::int64_t edge = 0, edges = 0;  // edges of these rows
  bool kept = false;                 // its logits are kept for backward
};

// Values that backward needs besides tensors.
struct HeadPlan : torch::CustomClassHolder {
  std::vector<Chunk> chunks;
  Linear linear;
  double p = 0.0;            // dropout
  double softcap = 0.0;      // 0: none
  double temperature = 0.0;  // 0: none
  Dropout dropout;
};

std::vector<Chunk> CutIntoChunks(const std::vector<std::int64_t>& first_edge, std::int64_t row_bytes,
                                 const HeadChunks& wanted) {
  const auto rows = static_cast<std::int64_t>(first_edge.size()) - 1;
  const auto edge_of = [&](std::int64_t row) { return first_edge[static_cast<std::size_t>(row)]; };
  std::vector<Chunk> chunks;
  std::int64_t kept_bytes = 0;
  for (std::int64_t row = 0; row < rows; row += wanted.rows) {
    Chunk chunk;
    chunk.row = row;
    chunk.rows = std::min(wanted.rows, rows - row);
    chunk.edge = edge_of(row);
    chunk.edges = edge_of(row + chunk.rows) - chunk.edge;
    chunk.kept = kept_bytes + chunk.rows * row_bytes <= wanted.keep_bytes;
    if (chunk.kept) kept_bytes += chunk.rows * row_bytes;
    chunks.push_back(chunk);
  }
  return chunks;
}

// Logits of a chunk, for bf16 in fp32; t_SK is the adapter's scaled inner value. Backward repeats
// this call where logits were not kept, and gets the same bits.
at::Tensor ChunkLogits(const Chunk& chunk, const at::Tensor& hidden_SE, const at::Tensor& weight_VE,
                       const at::Tensor& t_SK, const HeadPlan& plan) {
  const auto rows_of = [&chunk](const at::Tensor& x) { return x.narrow(0, chunk.row, chunk.rows); };
  at::Tensor z_RV = t_SK.defined() ? MultiplyUnrounded(rows_of(hidden_SE), weight_VE, rows_of(t_SK),
                                                       plan.linear.lora.b_OK.to(t_SK.dtype()))
                                   : MultiplyUnrounded(rows_of(hidden_SE), weight_VE);
  if (plan.softcap > 0.0) SoftCapInPlace(z_RV, plan.softcap);
  return z_RV;
}

// `tensors`: the weight, then A and B if there is an adapter; they tell autograd what to
// differentiate. Outputs: log p, log(1-p), and at a temperature b (else empty) log softmax(z / b)
// with its entropy.
class RowHead : public torch::autograd::Function<RowHead> {
 public:
  // Indices into the saved variables; kept logits follow.
  enum Saved { kHidden, kT, kLse, kLogP, kLogOneMinusP, kEdgeRow, kTarget, kKept };

  static variable_list forward(AutogradContext* ctx, const at::Tensor& hidden_SE, at::TensorList /*tensors*/,
                               const at::Tensor& edge_row, const at::Tensor& edge_target,
                               const c10::intrusive_ptr<HeadPlan>& plan, bool save) {
    const PartScope head(Part::kHead);
    const at::ScalarType dtype = hidden_SE.scalar_type();
    const HeldWeight held = plan->linear.Weight(dtype);
    const at::Tensor& weight_VE = held.Tensor();
    at::Tensor t_SK;
    if (plan->linear.HasLora()) {
      const LoraFactors& lora = plan->linear.lora;
      t_SK =
          MultiplyNarrow(AdapterInput(hidden_SE, *plan), lora.a_KI.to(dtype).t()).mul_(lora.scale).to(dtype);
    }
    const auto options = hidden_SE.options().dtype(at::kDouble);
    const at::Tensor lse_S = at::empty({hidden_SE.size(0)}, options);
    const at::Tensor log_p_E = at::empty({edge_row.size(0)}, options);
    const at::Tensor log_one_minus_p_E = at::empty_like(log_p_E);
    const bool tempered = plan->temperature > 0.0;
    const at::Tensor tempered_log_p_E = at::empty({tempered ? edge_row.size(0) : 0}, options);
    const at::Tensor tempered_entropy_E = at::empty_like(tempered_log_p_E);
    variable_list kept;
    for (const Chunk& chunk : plan->chunks) {
      at::Tensor z_RV = ChunkLogits(chunk, hidden_SE, weight_VE, t_SK, *plan);
      const auto edges_of = [&chunk](const at::Tensor& x) { return x.narrow(0, chunk.edge, chunk.edges); };
      const at::Tensor row_E = edges_of(edge_row) - chunk.row;
      const EdgeStatistics edges = StatisticsOfEdges(z_RV, row_E, edges_of(edge_target));
      lse_S.narrow(0, chunk.row, chunk.rows).copy_(edges.lse_R);
      edges_of(log_p_E).copy_(edges.log_p_E);
      edges_of(log_one_minus_p_E).copy_(edges.log_one_minus_p_E);
      if (tempered) {
        const TemperedStatistics at_b =
            TemperedStatisticsOfEdges(z_RV, plan->temperature, row_E, edges_of(edge_target));
        edges_of(tempered_log_p_E).copy_(at_b.log_p_E);
        edges_of(tempered_entropy_E).copy_(at_b.entropy_nats_E);
      }
      if (save && chunk.kept) kept.push_back(std::move(z_RV));
    }
    variable_list saved = {hidden_SE, t_SK, lse_S, log_p_E, log_one_minus_p_E, edge_row, edge_target};
    saved.insert(saved.end(), kept.begin(), kept.end());
    ctx->save_for_backward(std::move(saved));
    ctx->saved_data["plan"] = c10::IValue::make_capsule(plan);
    ctx->mark_non_differentiable({tempered_entropy_E});
    return {log_p_E, log_one_minus_p_E, tempered_log_p_E, tempered_entropy_E};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& upstream) {
    const PartScope head(Part::kHead);
    const auto capsule = ctx->saved_data["plan"].toCapsule();
    const auto& plan = static_cast<const HeadPlan&>(*capsule);
    const LoraFactors& lora = plan.linear.lora;
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor& hidden_SE = saved[kHidden];
    const at::Tensor& t_SK = saved[kT];
    const at::ScalarType dtype = hidden_SE.scalar_type();
    const HeldWeight held = plan.linear.Weight(dtype);
    const at::Tensor& weight_VE = held.Tensor();

    // d log p / dz = onehot - p and d log(1-p) / dz = -rho (onehot - p), rho = p / (1 - p): one
    // value per edge, and minus their sum times p. An edge without gradient adds 0 even where rho
    // overflows.
    const at::Tensor& d_one_minus_E = upstream[1];
    const at::Tensor rho_E = (saved[kLogP] - saved[kLogOneMinusP]).exp_();
    const at::Tensor t_E = upstream[0] - (rho_E * d_one_minus_E).masked_fill_(d_one_minus_E == 0, 0.0);
    const auto minus_sums = [&saved](const at::Tensor& value_E) {
      return at::zeros_like(saved[kLse]).index_add_(0, saved[kEdgeRow], value_E).neg_();
    };
    const at::Tensor c_S = minus_sums(t_E);
    // d log softmax(z / b) / dz = (onehot - softmax(z / b)) / b.
    at::Tensor a_S, scattered_E = t_E;
    if (plan.temperature > 0.0) {
      const at::Tensor tempered_t_E = upstream[2] / plan.temperature;
      a_S = minus_sums(tempered_t_E);
      scattered_E = t_E + tempered_t_E;
    }

    const bool adapted = plan.linear.HasLora();
    const bool needs_hidden = ctx->needs_input_grad(0);
    const bool needs_weight = ctx->needs_input_grad(1);
    const bool needs_a = adapted && ctx->needs_input_grad(2);
    const bool needs_b = adapted && ctx->needs_input_grad(3);
    at::Tensor dhidden_SE, dweight_VE, da_KE, db_KV, dt_SK;
    if (needs_hidden) dhidden_SE = at::empty_like(hidden_SE);
    if (needs_weight) dweight_VE = at::zeros_like(plan.linear.weight_OI);
    // Transposed: libraries are twice as fast at [K, V] as at a narrow [V, K].
    if (needs_b)
      db_KV = at::zeros({t_SK.size(1), weight_VE.size(0)}, t_SK.options().dtype(ComputedIn(dtype)));
    if (adapted && (needs_hidden || needs_a)) dt_SK = at::empty_like(t_SK);

    std::size_t next_kept = kKept;
    for (const Chunk& chunk : plan.chunks) {
      const auto rows_of = [&chunk](const at::Tensor& x) { return x.narrow(0, chunk.row, chunk.rows); };
      const auto edges_of = [&chunk](const at::Tensor& x) { return x.narrow(0, chunk.edge, chunk.edges); };
      at::Tensor z_RV =
          chunk.kept ? saved[next_kept++] : ChunkLogits(chunk, hidden_SE, weight_VE, t_SK, plan);
      RowCoefficients row_coefficients;
      row_coefficients.c_R = rows_of(c_S);
      if (a_S.defined()) {
        row_coefficients.a_R = rows_of(a_S);
        row_coefficients.b_R = at::full_like(row_coefficients.a_R, plan.temperature);
      }
      RowGradient(z_RV, rows_of(saved[kLse]), row_coefficients,
                  {edges_of(saved[kEdgeRow]) - chunk.row, edges_of(saved[kTarget]), edges_of(scattered_E),
                   edges_of(saved[kLogOneMinusP])},
                  plan.softcap);
      z_RV = z_RV.to(dtype);
      if (needs_b) db_KV.add_(SumOuterProducts(rows_of(t_SK), z_RV));
      if (dt_SK.defined()) rows_of(dt_SK).copy_(MultiplyNarrow(z_RV, lora.b_OK.to(dtype)).mul_(lora.scale));
      if (needs_hidden) rows_of(dhidden_SE).copy_(Multiply(z_RV, weight_VE));
      if (needs_weight && dweight_VE.scalar_type() == dtype) {
        dweight_VE.addmm_(z_RV.t(), rows_of(hidden_SE));
      } else if (needs_weight) {
        dweight_VE.add_(SumOuterProducts(z_RV, rows_of(hidden_SE)));
      }
    }
    if (dt_SK.defined()) {
      if (needs_a) da_KE = SumOuterProducts(dt_SK, AdapterInput(hidden_SE, plan)).to(lora.a_KI.dtype());
      const at::Tensor a_KE = lora.a_KI.to(dtype);
      if (needs_hidden && plan.p > 0) {
        dhidden_SE.add_(Dropped(plan.dropout, plan.p, at::mm(dt_SK, a_KE)));
      } else if (needs_hidden) {
        dhidden_SE.addmm_(dt_SK, a_KE);
      }
    }
    variable_list gradients = {dhidden_SE, dweight_VE};
    if (adapted) {
      gradients.push_back(da_KE);
      gradients.push_back(needs_b ? db_KV.t().to(lora.b_OK.dtype()) : at::Tensor());
    }
    gradients.resize(gradients.size() + 4);  // edge_row, edge_target, plan, save
    return gradients;
  }

 private:
  static at::Tensor AdapterInput(const at::Tensor& hidden_SE, const HeadPlan& plan) {
    return plan.p > 0 ? Dropped(plan.dropout, plan.p, hidden_SE) : hidden_SE;
  }
};

}  // namespace

at::Tensor VocabularyHead::Logits(const at::Tensor& hidden_NE) const {
  const bool differentiable = at::GradMode::is_enabled() && hidden_NE.requires_grad();
  const at::Tensor z_NV = differentiable ? linear.Forward(hidden_NE) : linear.ForwardUnrounded(hidden_NE);
  return softcap > 0.0 ? SoftCap(z_NV, softcap) : z_NV;
}

EdgeList::EdgeList(std::int64_t rows, const std::vector<std::int64_t>& row_E,
                   const std::vector<std::int64_t>& target_E, at::Device device)
    : edge_row(ToDevice(row_E, at::kLong, device)), edge_target(ToDevice(target_E, at::kLong, device)) {
  if (!std::ranges::is_sorted(row_E) || (!row_E.empty() && (row_E.front() < 0 || row_E.back() >= rows))) {
    throw std::logic_error("edges are not ordered by source row, or are of other rows");
  }
  for (std::int64_t row = 0; row <= rows; ++row) {
    first_edge.push_back(std::ranges::lower_bound(row_E, row) - row_E.begin());
  }
}

HeadChunks HeadChunksOn(at::Device device, std::int64_t row_bytes) {
  constexpr std::int64_t kMiB = 1 << 20, kRows = 256;
  if (device.is_cpu()) return {.rows = kRows, .keep_bytes = 256 * kMiB};
  // Each chunk reads the whole weight: 512 MiB are 4,096 rows of a vocabulary of 32,000, 768 of one of
  // 152,000.
  return {.rows = std::max<std::int64_t>(512 * kMiB / row_bytes / kRows, 1) * kRows,
          .keep_bytes = 2048 * kMiB};
}

EdgeLogProbs EdgeLogProb(const at::Tensor& hidden_SE, const VocabularyHead& head, const EdgeList& edges,
                         const HeadSettings& settings) {
  if (hidden_SE.size(0) + 1 != static_cast<std::int64_t>(edges.first_edge.size())) {
    throw std::logic_error("the edges are of another number of rows");
  }
  auto plan = c10::make_intrusive<HeadPlan>();
  const auto logit_bytes = static_cast<std::int64_t>(at::elementSize(ComputedIn(hidden_SE.scalar_type())));
  const std::int64_t row_bytes = head.linear.weight_OI.size(0) * logit_bytes;
  const HeadChunks usual = HeadChunksOn(hidden_SE.device(), row_bytes);
  plan->chunks = CutIntoChunks(edges.first_edge, row_bytes,
                               {.rows = settings.chunk_rows.value_or(usual.rows),
                                .keep_bytes = settings.keep_bytes.value_or(usual.keep_bytes)});
  plan->linear = head.linear;
  plan->softcap = head.softcap;
  plan->temperature = settings.temperature;
  variable_list tensors = {head.linear.weight_OI};
  if (head.linear.HasLora()) {
    plan->p = settings.dropout ? head.linear.lora.dropout : 0.0;
    plan->dropout = settings.dropout;
    tensors.insert(tensors.end(), {head.linear.lora.a_KI, head.linear.lora.b_OK});
  }
  const variable_list outputs = RowHead::apply(hidden_SE, at::TensorList(tensors), edges.edge_row,
                                               edges.edge_target, plan, at::GradMode::is_enabled());
  if (plan->temperature == 0.0) return {outputs[0], outputs[1], {}, {}};
  return {outputs[0], outputs[1], outputs[2], outputs[3]};
}

}  // namespace plural::trainer
