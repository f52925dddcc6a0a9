#include "trainer/model/head.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <stdexcept>
#include <vector>

#include "trainer/model/multiply.h"
#include "trainer/model/part_scope.h"
#include "trainer/model/pointwise.h"
#include "trainer/model/softmax_rows.h"

namespace plural::trainer {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct Chunk {
  std::int64_t row = 0, rows = 0;    // source rows
  std::int64_t edge = 0, edges = 0;  // edges of these rows
  bool kept = false;                 // its logits wait for backward
};

// What backward needs besides tensors.
struct HeadPlan : torch::CustomClassHolder {
  std::vector<Chunk> chunks;
  bool lora = false;
  double scale = 1.0;
  double p = 0.0;        // dropout
  double softcap = 0.0;  // 0: none
  Dropout dropout;
};

std::vector<Chunk> CutIntoChunks(const at::Tensor& edge_row, std::int64_t rows, std::int64_t row_bytes,
                                 const HeadSettings& settings) {
  const at::Tensor host = edge_row.to(at::kCPU).contiguous();
  const std::int64_t* first = host.const_data_ptr<std::int64_t>();
  const std::int64_t* last = first + host.numel();
  if (!std::is_sorted(first, last)) throw std::logic_error("edges are not ordered by source row");
  std::vector<Chunk> chunks;
  std::int64_t kept_bytes = 0;
  for (std::int64_t row = 0; row < rows; row += settings.chunk_rows) {
    Chunk chunk;
    chunk.row = row;
    chunk.rows = std::min(settings.chunk_rows, rows - row);
    chunk.edge = std::lower_bound(first, last, row) - first;
    chunk.edges = std::lower_bound(first, last, row + chunk.rows) - first - chunk.edge;
    chunk.kept = kept_bytes + chunk.rows * row_bytes <= settings.keep_bytes;
    if (chunk.kept) kept_bytes += chunk.rows * row_bytes;
    chunks.push_back(chunk);
  }
  return chunks;
}

// Logits of a chunk; t_SK is the adapter's scaled inner value. Backward repeats this call where logits were
// not kept, and gets the same bits.
at::Tensor ChunkLogits(const Chunk& chunk, const at::Tensor& hidden_SE, const at::Tensor& weight_VE,
                       const at::Tensor& t_SK, const at::Tensor& b_VK, double softcap) {
  at::Tensor z_RV = MultiplyTransposed(hidden_SE.narrow(0, chunk.row, chunk.rows), weight_VE);
  if (t_SK.defined()) z_RV.addmm_(t_SK.narrow(0, chunk.row, chunk.rows), b_VK.t());
  if (softcap > 0.0) SoftCapInPlace(z_RV, softcap);
  return z_RV;
}

// Tensors: the weight, then A and B if there is an adapter. Outputs: log p, log(1-p), entropy.
class RowHead : public torch::autograd::Function<RowHead> {
 public:
  // Indices into the saved variables; kept logits follow.
  enum Saved { kHidden, kWeight, kA, kB, kT, kLse, kEntropy, kLogP, kLogOneMinusP, kEdgeRow, kTarget, kKept };

  static variable_list forward(AutogradContext* ctx, const at::Tensor& hidden_SE, at::TensorList tensors,
                               const at::Tensor& edge_row, const at::Tensor& edge_target,
                               const c10::intrusive_ptr<HeadPlan>& plan, bool save) {
    const PartScope head(Part::kHead);
    const at::Tensor& weight_VE = tensors[0];
    at::Tensor a_KE, b_VK, t_SK;
    if (plan->lora) {
      a_KE = tensors[1];
      b_VK = tensors[2];
      t_SK = at::mm(AdapterInput(hidden_SE, *plan), a_KE.t()).mul_(plan->scale);
    }
    const auto options = hidden_SE.options().dtype(at::kDouble);
    const at::Tensor lse_S = at::empty({hidden_SE.size(0)}, options);
    const at::Tensor entropy_S = at::empty_like(lse_S);
    const at::Tensor log_p_E = at::empty({edge_row.size(0)}, options);
    const at::Tensor log_one_minus_p_E = at::empty_like(log_p_E);
    variable_list kept;
    for (const Chunk& chunk : plan->chunks) {
      at::Tensor z_RV = ChunkLogits(chunk, hidden_SE, weight_VE, t_SK, b_VK, plan->softcap);
      const RowStatistics rows = StatisticsOfRows(z_RV);
      const EdgeStatistics edges =
          StatisticsOfEdges(z_RV, rows, edge_row.narrow(0, chunk.edge, chunk.edges) - chunk.row,
                            edge_target.narrow(0, chunk.edge, chunk.edges));
      lse_S.narrow(0, chunk.row, chunk.rows).copy_(rows.lse_R);
      entropy_S.narrow(0, chunk.row, chunk.rows).copy_(rows.entropy_nats_R);
      log_p_E.narrow(0, chunk.edge, chunk.edges).copy_(edges.log_p_E);
      log_one_minus_p_E.narrow(0, chunk.edge, chunk.edges).copy_(edges.log_one_minus_p_E);
      if (save && chunk.kept) kept.push_back(std::move(z_RV));
    }
    variable_list saved = {hidden_SE, weight_VE,         a_KE,     b_VK,       t_SK, lse_S, entropy_S,
                           log_p_E,   log_one_minus_p_E, edge_row, edge_target};
    saved.insert(saved.end(), kept.begin(), kept.end());
    ctx->save_for_backward(std::move(saved));
    ctx->saved_data["plan"] = c10::IValue::make_capsule(plan);
    ctx->mark_non_differentiable({entropy_S});
    return {log_p_E, log_one_minus_p_E, entropy_S};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& upstream) {
    const PartScope head(Part::kHead);
    const auto capsule = ctx->saved_data["plan"].toCapsule();
    const auto& plan = static_cast<const HeadPlan&>(*capsule);
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor& hidden_SE = saved[kHidden];
    const at::Tensor& weight_VE = saved[kWeight];

    // d log p / dz = onehot - p and d log(1-p) / dz = -rho (onehot - p), rho = p / (1 - p): one value an
    // edge, and minus their sum times p. An edge without gradient adds 0 even where rho overflows.
    const at::Tensor& d_one_minus_E = upstream[1];
    const at::Tensor rho_E = (saved[kLogP] - saved[kLogOneMinusP]).exp_();
    const at::Tensor t_E = upstream[0] - (rho_E * d_one_minus_E).masked_fill_(d_one_minus_E == 0, 0.0);
    const at::Tensor c_S = at::zeros_like(saved[kLse]).index_add_(0, saved[kEdgeRow], t_E).neg_();

    const bool needs_hidden = ctx->needs_input_grad(0);
    const bool needs_weight = ctx->needs_input_grad(1);
    const bool needs_a = plan.lora && ctx->needs_input_grad(2);
    const bool needs_b = plan.lora && ctx->needs_input_grad(3);
    at::Tensor dhidden_SE, dweight_VE, da_KE, db_VK, dt_SK;
    if (needs_hidden) dhidden_SE = at::empty_like(hidden_SE);
    if (needs_weight) dweight_VE = at::zeros_like(weight_VE);
    if (needs_b) db_VK = at::zeros_like(saved[kB]);
    if (plan.lora && (needs_hidden || needs_a)) dt_SK = at::empty_like(saved[kT]);

    std::size_t next_kept = kKept;
    for (const Chunk& chunk : plan.chunks) {
      const auto rows_of = [&chunk](const at::Tensor& x) { return x.narrow(0, chunk.row, chunk.rows); };
      const auto edges_of = [&chunk](const at::Tensor& x) { return x.narrow(0, chunk.edge, chunk.edges); };
      at::Tensor z_RV = chunk.kept
                            ? saved[next_kept++]
                            : ChunkLogits(chunk, hidden_SE, weight_VE, saved[kT], saved[kB], plan.softcap);
      RowCoefficients row_coefficients;
      row_coefficients.c_R = rows_of(c_S);
      RowGradient(z_RV, {rows_of(saved[kLse]), rows_of(saved[kEntropy])}, row_coefficients,
                  {edges_of(saved[kEdgeRow]) - chunk.row, edges_of(saved[kTarget]), edges_of(t_E),
                   edges_of(saved[kLogOneMinusP])},
                  plan.softcap);
      if (needs_hidden) rows_of(dhidden_SE).copy_(Multiply(z_RV, weight_VE));
      if (needs_weight) dweight_VE.addmm_(z_RV.t(), rows_of(hidden_SE));
      if (needs_b) db_VK.addmm_(z_RV.t(), rows_of(saved[kT]));
      if (dt_SK.defined()) rows_of(dt_SK).copy_(Multiply(z_RV, saved[kB]));
    }
    if (dt_SK.defined()) {
      dt_SK.mul_(plan.scale);
      if (needs_a) da_KE = at::mm(dt_SK.t(), AdapterInput(hidden_SE, plan));
      if (needs_hidden && plan.p > 0) {
        dhidden_SE.add_(Dropped(plan.dropout, plan.p, at::mm(dt_SK, saved[kA])));
      } else if (needs_hidden) {
        dhidden_SE.addmm_(dt_SK, saved[kA]);
      }
    }
    variable_list gradients = {dhidden_SE, dweight_VE};
    if (plan.lora) gradients.insert(gradients.end(), {da_KE, db_VK});
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
  const at::Tensor z_NV = linear.Forward(hidden_NE);
  return softcap > 0.0 ? SoftCap(z_NV, softcap) : z_NV;
}

EdgeLogProbs EdgeLogProb(const at::Tensor& hidden_NE, const VocabularyHead& head, const EdgeList& edges,
                         const HeadSettings& settings) {
  const at::Tensor hidden_SE = edges.row.defined() ? hidden_NE.index_select(0, edges.row) : hidden_NE;
  auto plan = c10::make_intrusive<HeadPlan>();
  plan->chunks = CutIntoChunks(edges.edge_row, hidden_SE.size(0),
                               head.linear.weight_OI.size(0) * hidden_SE.element_size(), settings);
  plan->softcap = head.softcap;
  variable_list tensors = {head.linear.weight_OI};
  if (head.linear.HasLora()) {
    plan->lora = true;
    plan->scale = head.linear.lora.scale;
    plan->p = settings.dropout ? head.linear.lora.dropout : 0.0;
    plan->dropout = settings.dropout;
    tensors.insert(tensors.end(), {head.linear.lora.a_KI, head.linear.lora.b_OK});
  }
  const variable_list outputs = RowHead::apply(hidden_SE, at::TensorList(tensors), edges.edge_row,
                                               edges.edge_target, plan, at::GradMode::is_enabled());
  return {outputs[0], outputs[1], outputs[2]};
}

}  // namespace plural::trainer
