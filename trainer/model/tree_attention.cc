#include "trainer/model/tree_attention.h"

#include <ATen/Dispatch.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <vector>

#include "trainer/model/dtypes.h"
#include "trainer/model/host_loops.h"
#include "trainer/model/part_scope.h"

namespace plural::trainer {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Rows a block: large enough for efficient multiplies, small against the path before it.
constexpr std::int64_t kBlockRows = 64;

struct Block {
  std::int64_t begin = 0, rows = 0;
  std::vector<std::int64_t> keys;  // what is visible of the path to row `begin`, then the block's own rows
  at::Tensor mask;                 // [rows, keys]: 0 or -inf
};

struct TreePlan : torch::CustomClassHolder {
  std::vector<Block> blocks;
  host::ScoreTerms terms;
};

template <class T>
void FillMask(const data::RowPass& pass, std::int64_t window, const Block& block, T* mask) {
  for (std::int64_t q = block.begin; q < block.begin + block.rows; ++q) {
    for (const std::int64_t k : block.keys) {
      const bool sees =
          k <= q && q < pass.end[k] && (window <= 0 || pass.position[q] - pass.position[k] < window);
      *mask++ = sees ? T{0} : -std::numeric_limits<T>::infinity();
    }
  }
}

c10::intrusive_ptr<TreePlan> CutIntoBlocks(const data::RowPass& pass, std::int64_t window,
                                           const host::ScoreTerms& terms, at::ScalarType dtype) {
  auto plan = c10::make_intrusive<TreePlan>();
  plan->terms = terms;
  std::vector<std::int64_t> path;  // of the block's first row
  for (std::int64_t begin = 0; begin < pass.length; begin += kBlockRows) {
    Block block;
    block.begin = begin;
    block.rows = std::min(kBlockRows, pass.length - begin);
    std::erase_if(path, [&](std::int64_t k) { return pass.end[k] <= begin; });
    std::int32_t nearest = pass.position[begin];  // position of the block's row that sees farthest back
    for (std::int64_t row = begin; row < begin + block.rows; ++row) {
      nearest = std::min(nearest, pass.position[row]);
    }
    for (const std::int64_t k : path) {
      if (window <= 0 || nearest - pass.position[k] < window) block.keys.push_back(k);
    }
    for (std::int64_t row = begin; row < begin + block.rows; ++row) {
      block.keys.push_back(row);
      path.push_back(row);  // what is not an ancestor of the next block's first row falls out there
    }
    block.mask = at::empty({block.rows, static_cast<std::int64_t>(block.keys.size())}, dtype);
    AT_DISPATCH_FLOATING_TYPES(dtype, "tree mask",
                               [&] { FillMask(pass, window, block, block.mask.data_ptr<scalar_t>()); });
    plan->blocks.push_back(std::move(block));
  }
  return plan;
}

// x [N, heads, D] -> [heads, rows, D], rows given by index or by range.
template <class T>
void Gather(const at::Tensor& x, const std::int64_t* index, std::int64_t rows, T* out) {
  const std::int64_t heads = x.size(1), dim = x.size(2), stride = x.stride(0), head_stride = x.stride(1);
  const T* from = x.const_data_ptr<T>();
  for (std::int64_t head = 0; head < heads; ++head) {
    for (std::int64_t row = 0; row < rows; ++row, out += dim) {
      std::memcpy(out, from + index[row] * stride + head * head_stride,
                  static_cast<std::size_t>(dim) * sizeof(T));
    }
  }
}

// The way back, added: a key is in the blocks of all its descendants.
template <class T>
void ScatterAdd(const T* in, const std::int64_t* index, std::int64_t rows, const at::Tensor& x) {
  const std::int64_t heads = x.size(1), dim = x.size(2);
  T* to = x.mutable_data_ptr<T>();
  for (std::int64_t head = 0; head < heads; ++head) {
    for (std::int64_t row = 0; row < rows; ++row, in += dim) {
      host::AddTo(to + (index[row] * heads + head) * dim, in, dim);
    }
  }
}

// Query heads that share a key head are stacked: [G, R, D] with R = heads / G * rows.
template <class T>
struct BlockTensors {
  at::Tensor q_GRD, k_GKD, v_GKD;

  BlockTensors(const Block& block, const at::Tensor& q_NHD, const at::Tensor& k_NGD, const at::Tensor& v_NGD)
      : q_GRD(Queries(block, q_NHD, k_NGD.size(1))), k_GKD(Keys(block, k_NGD)), v_GKD(Keys(block, v_NGD)) {}

  static at::Tensor Queries(const Block& block, const at::Tensor& x_NHD, std::int64_t shared_heads) {
    const at::Tensor out =
        at::empty({shared_heads, x_NHD.size(1) / shared_heads * block.rows, x_NHD.size(2)}, x_NHD.options());
    Gather<T>(x_NHD, block.keys.data() + block.keys.size() - block.rows, block.rows, out.data_ptr<T>());
    return out;
  }

  static at::Tensor Keys(const Block& block, const at::Tensor& x_NGD) {
    const auto keys = static_cast<std::int64_t>(block.keys.size());
    const at::Tensor out = at::empty({x_NGD.size(1), keys, x_NGD.size(2)}, x_NGD.options());
    Gather<T>(x_NGD, block.keys.data(), keys, out.data_ptr<T>());
    return out;
  }
};

class BlockAttention : public torch::autograd::Function<BlockAttention> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& q_NHD, const at::Tensor& k_NGD,
                            const at::Tensor& v_NGD, const c10::intrusive_ptr<TreePlan>& plan) {
    const PartScope attention(Part::kAttention);
    const at::Tensor sums_NHD = at::zeros(q_NHD.sizes(), Wide(q_NHD));
    const at::Tensor lse = at::empty({q_NHD.size(0) * q_NHD.size(1)}, Wide(q_NHD));  // block after block
    AT_DISPATCH_FLOATING_TYPES(sums_NHD.scalar_type(), "tree attention", [&] {
      const auto dtype = sums_NHD.scalar_type();
      Forward<scalar_t>(*plan, q_NHD.to(dtype), k_NGD.to(dtype), v_NGD.to(dtype), sums_NHD, lse);
    });
    const at::Tensor out_NHD = sums_NHD.to(q_NHD.scalar_type());
    ctx->save_for_backward({q_NHD, k_NGD, v_NGD, out_NHD, lse});
    ctx->saved_data["plan"] = c10::IValue::make_capsule(plan);
    return out_NHD;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& dout) {
    const PartScope attention(Part::kAttention);
    const auto capsule = ctx->saved_data["plan"].toCapsule();
    const auto& plan = static_cast<const TreePlan&>(*capsule);
    variable_list saved = ctx->get_saved_variables();
    const at::ScalarType dtype = saved[0].scalar_type();
    const at::TensorOptions wide = Wide(saved[0]);
    for (at::Tensor& x : saved) x = x.to(wide);
    const at::Tensor dq_NHD = at::zeros(saved[0].sizes(), wide);
    const at::Tensor dk_NGD = at::zeros(saved[1].sizes(), wide);
    const at::Tensor dv_NGD = at::zeros(saved[2].sizes(), wide);
    const at::Tensor dout_NHD = dout[0].to(wide).contiguous();
    AT_DISPATCH_FLOATING_TYPES(dq_NHD.scalar_type(), "tree attention",
                               [&] { Backward<scalar_t>(plan, saved, dout_NHD, dq_NHD, dk_NGD, dv_NGD); });
    return {dq_NHD.to(dtype), dk_NGD.to(dtype), dv_NGD.to(dtype), at::Tensor()};
  }

 private:
  // Scores, probabilities and sums of bf16 are fp32.
  static at::TensorOptions Wide(const at::Tensor& x) {
    return x.options().dtype(ComputedIn(x.scalar_type())).requires_grad(false);
  }

  template <class T>
  static void Forward(const TreePlan& plan, const at::Tensor& q_NHD, const at::Tensor& k_NGD,
                      const at::Tensor& v_NGD, const at::Tensor& out_NHD, const at::Tensor& lse) {
    T* next_lse = lse.mutable_data_ptr<T>();
    for (const Block& block : plan.blocks) {
      const BlockTensors<T> in(block, q_NHD, k_NGD, v_NGD);
      const at::Tensor scores = at::bmm(in.q_GRD, in.k_GKD.transpose(1, 2));
      host::MaskedSoftmax(scores.mutable_data_ptr<T>(), block.mask.const_data_ptr<T>(), plan.terms,
                          q_NHD.size(1), block.rows, scores.size(2), next_lse);
      next_lse += q_NHD.size(1) * block.rows;
      const at::Tensor out = at::bmm(scores, in.v_GKD);
      ScatterAdd(out.const_data_ptr<T>(), OwnRows(block), block.rows, out_NHD);
    }
  }

  template <class T>
  static void Backward(const TreePlan& plan, const variable_list& saved, const at::Tensor& dout_NHD,
                       const at::Tensor& dq_NHD, const at::Tensor& dk_NGD, const at::Tensor& dv_NGD) {
    const at::Tensor& q_NHD = saved[0];
    const at::Tensor delta_HN = (saved[3] * dout_NHD).sum(2).t().contiguous();
    const T* next_lse = saved[4].const_data_ptr<T>();
    for (const Block& block : plan.blocks) {
      const auto keys = static_cast<std::int64_t>(block.keys.size());
      const BlockTensors<T> in(block, q_NHD, saved[1], saved[2]);
      const at::Tensor dout_GRD = BlockTensors<T>::Queries(block, dout_NHD, saved[1].size(1));
      const at::Tensor p = at::bmm(in.q_GRD, in.k_GKD.transpose(1, 2));
      const at::Tensor ds = at::bmm(dout_GRD, in.v_GKD.transpose(1, 2));
      const at::Tensor delta = delta_HN.narrow(1, block.begin, block.rows).contiguous();
      host::MaskedSoftmaxBackward(p.mutable_data_ptr<T>(), ds.mutable_data_ptr<T>(),
                                  block.mask.const_data_ptr<T>(), next_lse, delta.const_data_ptr<T>(),
                                  plan.terms, q_NHD.size(1), block.rows, keys);
      next_lse += q_NHD.size(1) * block.rows;
      const at::Tensor dv = at::bmm(p.transpose(1, 2), dout_GRD);
      ScatterAdd(dv.const_data_ptr<T>(), block.keys.data(), keys, dv_NGD);
      const at::Tensor dk = at::bmm(ds.transpose(1, 2), in.q_GRD);
      ScatterAdd(dk.const_data_ptr<T>(), block.keys.data(), keys, dk_NGD);
      const at::Tensor dq = at::bmm(ds, in.k_GKD);
      ScatterAdd(dq.const_data_ptr<T>(), OwnRows(block), block.rows, dq_NHD);
    }
  }

  static const std::int64_t* OwnRows(const Block& block) {
    return block.keys.data() + block.keys.size() - block.rows;
  }
};

class TreeAttention : public Attention {
 public:
  // `plans`: one a window.
  TreeAttention(std::vector<c10::intrusive_ptr<TreePlan>> plans, std::vector<std::size_t> plan_of_layer)
      : plans_(std::move(plans)), plan_of_layer_(std::move(plan_of_layer)) {}

  at::Tensor operator()(std::int64_t layer, const at::Tensor& q_NHD, const at::Tensor& k_NGD,
                        const at::Tensor& v_NGD) override {
    const auto& plan = plans_[plan_of_layer_.at(static_cast<std::size_t>(layer))];
    return BlockAttention::apply(q_NHD, k_NGD, v_NGD, plan).view({q_NHD.size(0), -1});
  }

 private:
  std::vector<c10::intrusive_ptr<TreePlan>> plans_;
  std::vector<std::size_t> plan_of_layer_;
};

}  // namespace

std::unique_ptr<Attention> MakeTreeAttention(const data::RowPass& pass, const ModelConfig& config,
                                             at::ScalarType dtype) {
  LayerWindows layers = WindowsOf(pass, config);
  const host::ScoreTerms terms{.scale = config.AttentionScale(), .softcap = config.attn_logit_softcapping};
  std::vector<c10::intrusive_ptr<TreePlan>> plans;
  for (const std::int64_t window : layers.windows)
    plans.push_back(CutIntoBlocks(pass, window, terms, ComputedIn(dtype)));
  return std::make_unique<TreeAttention>(std::move(plans), std::move(layers.of_layer));
}

}  // namespace plural::trainer
