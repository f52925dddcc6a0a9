#include "trainer/ops/tree_attention_cuda.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <c10/core/DeviceGuard.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cstdint>
#include <utility>
#include <vector>

#include "trainer/kernels/cuda/tree_blocks.h"
#include "trainer/ops/kernel_operands.h"
#include "trainer/ops/part_scope.h"
#include "trainer/ops/to_device.h"
#include "trainer/ops/tree_lists.h"

namespace plural::trainer {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Where the parts of one window are in `numbers`.
struct KernelPlan : torch::CustomClassHolder {
  CudaKernels kernels;
  at::Tensor numbers;  // int32, all lists of the pass
  std::int64_t end = 0, position = 0, keys_first = 0, keys_tile = 0, queries_first = 0, queries_tile = 0;
  std::int32_t window = 0;
  float scale = 1, softcap = 0;
  KernelType type = KernelType::kFp32;

  const std::int32_t* At(std::int64_t offset) const {
    return numbers.const_data_ptr<std::int32_t>() + offset;
  }
};

// The kernels read 16 bytes at a time.
at::Tensor RowsAligned(const at::Tensor& x_NHD) {
  const std::int64_t values = 16 / static_cast<std::int64_t>(x_NHD.element_size());
  const bool aligned = x_NHD.stride(2) == 1 && x_NHD.stride(0) % values == 0 &&
                       x_NHD.stride(1) % values == 0 &&
                       reinterpret_cast<std::uintptr_t>(x_NHD.const_data_ptr()) % 16 == 0;
  return aligned ? x_NHD : x_NHD.clone(at::MemoryFormat::Contiguous);
}

TreeAttentionArguments ArgumentsOf(const KernelPlan& plan, const at::Tensor& q, const at::Tensor& k,
                                   const at::Tensor& v, const at::Tensor& out, const at::Tensor& lse_HN) {
  return {.q = q.const_data_ptr(),
          .k = k.const_data_ptr(),
          .v = v.const_data_ptr(),
          .q_row = q.stride(0),
          .q_head = q.stride(1),
          .k_row = k.stride(0),
          .k_head = k.stride(1),
          .v_row = v.stride(0),
          .v_head = v.stride(1),
          .rows = static_cast<std::int32_t>(q.size(0)),
          .heads = static_cast<std::int32_t>(q.size(1)),
          .shared_heads = static_cast<std::int32_t>(k.size(1)),
          .dim = static_cast<std::int32_t>(q.size(2)),
          .end = plan.At(plan.end),
          .position = plan.At(plan.position),
          .window = plan.window,
          .scale = plan.scale,
          .softcap = plan.softcap,
          .keys_of_queries = {plan.At(plan.keys_first), plan.At(plan.keys_tile)},
          .queries_of_keys = {plan.At(plan.queries_first), plan.At(plan.queries_tile)},
          .out = out.mutable_data_ptr(),
          .lse = lse_HN.mutable_data_ptr<float>(),
          .dout = nullptr,
          .delta = nullptr,
          .dq = nullptr,
          .dk = nullptr,
          .dv = nullptr,
          .type = plan.type};
}

at::Tensor DenseLike(const at::Tensor& x) { return at::empty(x.sizes(), x.options().requires_grad(false)); }

class KernelAttention : public torch::autograd::Function<KernelAttention> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& q, const at::Tensor& k,
                            const at::Tensor& v, const c10::intrusive_ptr<KernelPlan>& plan) {
    const at::Tensor q_NHD = RowsAligned(q), k_NGD = RowsAligned(k), v_NGD = RowsAligned(v);
    const at::Tensor out_NHD = DenseLike(q_NHD);
    const at::Tensor lse_HN =
        at::empty({q.size(1), q.size(0)}, q.options().dtype(at::kFloat).requires_grad(false));
    StartKernel(plan->kernels.tree_attention, "plural::tree_attention",
                ArgumentsOf(*plan, q_NHD, k_NGD, v_NGD, out_NHD, lse_HN), q.device());
    ctx->save_for_backward({q_NHD, k_NGD, v_NGD, out_NHD, lse_HN});
    ctx->saved_data["plan"] = c10::IValue::make_capsule(plan);
    return out_NHD;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& upstream) {
    const PartScope attention(Part::kAttention);
    const auto capsule = ctx->saved_data["plan"].toCapsule();
    const auto& plan = static_cast<const KernelPlan&>(*capsule);
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor &q_NHD = saved[0], &k_NGD = saved[1], &v_NGD = saved[2];
    const at::Tensor dout_NHD = RowsAligned(upstream[0].contiguous());
    const at::Tensor dq_NHD = DenseLike(q_NHD), dk_NGD = DenseLike(k_NGD), dv_NGD = DenseLike(v_NGD);
    const at::Tensor delta_HN = at::empty_like(saved[4]);
    TreeAttentionArguments arguments = ArgumentsOf(plan, q_NHD, k_NGD, v_NGD, saved[3], saved[4]);
    arguments.dout = dout_NHD.const_data_ptr();
    arguments.delta = delta_HN.mutable_data_ptr<float>();
    arguments.dq = dq_NHD.mutable_data_ptr();
    arguments.dk = dk_NGD.mutable_data_ptr();
    arguments.dv = dv_NGD.mutable_data_ptr();
    StartKernel(plan.kernels.tree_attention_backward, "plural::tree_attention_backward", arguments,
                q_NHD.device());
    return {dq_NHD, dk_NGD, dv_NGD, at::Tensor()};
  }
};

class CudaTreeAttention : public Attention {
 public:
  // `plans`: one per window.
  CudaTreeAttention(std::vector<c10::intrusive_ptr<KernelPlan>> plans, std::vector<std::size_t> plan_of_layer)
      : plans_(std::move(plans)), plan_of_layer_(std::move(plan_of_layer)) {}

  at::Tensor operator()(std::int64_t layer, const at::Tensor& q_NHD, const at::Tensor& k_NGD,
                        const at::Tensor& v_NGD) override {
    const PartScope attention(Part::kAttention);
    const auto& plan = plans_[plan_of_layer_.at(static_cast<std::size_t>(layer))];
    return KernelAttention::apply(q_NHD, k_NGD, v_NGD, plan).view({q_NHD.size(0), -1});
  }

 private:
  std::vector<c10::intrusive_ptr<KernelPlan>> plans_;
  std::vector<std::size_t> plan_of_layer_;
};

}  // namespace

bool HasTreeKernel(std::int64_t head_dim, std::int64_t element_bytes) {
  return element_bytes <= 4 && TreeWidthOf(static_cast<int>(head_dim)) != 0;
}

bool TreeKernelServes(const AttentionTerms& terms, at::ScalarType dtype, at::Device device,
                      const CudaKernels& kernels) {
  if (!kernels.tree_attention || !kernels.tree_attention_backward || !kernels.tree_attention_serves)
    return false;
  if (terms.heads == 0 || !IsFp32OrBf16(dtype)) return false;
  const c10::DeviceGuard guard(device);
  const KernelType type = KernelTypeOf(dtype);
  return kernels.tree_attention_serves(type, static_cast<int>(terms.head_dim)) == 1;
}

std::unique_ptr<Attention> MakeTreeAttentionOnCuda(const data::RowPass& pass, const AttentionTerms& terms,
                                                   at::ScalarType dtype, at::Device device,
                                                   const CudaKernels& kernels) {
  if (!TreeKernelServes(terms, dtype, device, kernels)) return nullptr;
  const KernelType type = KernelTypeOf(dtype);
  const TreeBlocks blocks = TreeBlocksOf(type, static_cast<int>(terms.head_dim),
                                         static_cast<int>(terms.heads), static_cast<int>(terms.shared_heads));
  LayerWindows layers = WindowsOf(pass, terms);
  std::vector<std::int32_t> numbers;
  const auto append = [&numbers](const std::vector<std::int32_t>& values) {
    const auto at = static_cast<std::int64_t>(numbers.size());
    numbers.insert(numbers.end(), values.begin(), values.end());
    return at;
  };
  const std::int64_t end = append(pass.end), position = append(pass.position);
  std::vector<c10::intrusive_ptr<KernelPlan>> plans;
  for (const std::int64_t window : layers.windows) {
    const auto& plan = plans.emplace_back(c10::make_intrusive<KernelPlan>());
    const TreeLists lists = MakeTreeLists(pass, window,
                                          {.queries = blocks.queries,
                                           .keys = blocks.keys,
                                           .key_block = blocks.key_block,
                                           .query_tile = blocks.query_tile});
    plan->kernels = kernels;
    plan->end = end;
    plan->position = position;
    plan->keys_first = append(lists.keys_of_queries.first);
    plan->keys_tile = append(lists.keys_of_queries.tile);
    plan->queries_first = append(lists.queries_of_keys.first);
    plan->queries_tile = append(lists.queries_of_keys.tile);
    plan->window = static_cast<std::int32_t>(window);
    plan->scale = static_cast<float>(terms.scale);
    plan->softcap = static_cast<float>(terms.softcap);
    plan->type = type;
  }
  const at::Tensor on_device = ToDevice(numbers, at::kInt, device);
  for (const auto& plan : plans) plan->numbers = on_device;
  return std::make_unique<CudaTreeAttention>(std::move(plans), std::move(layers.of_layer));
}

}  // namespace plural::trainer
