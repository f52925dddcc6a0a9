#include "trainer/ops/joined_rows.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "trainer/ops/cuda_kernels.h"
#include "trainer/ops/kernel_operands.h"
#include "trainer/ops/part_scope.h"
#include "trainer/ops/pointwise.h"

namespace plural::trainer {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

at::Tensor Made(std::int64_t rows, std::int64_t width, const at::Tensor& like) {
  return at::empty({rows, width}, like.options().requires_grad(false));
}

// What backward needs besides tensors.
struct JoinedPlan : torch::CustomClassHolder {
  const CudaKernels* kernels = nullptr;
  std::int64_t query_heads = 0, key_heads = 0;
  bool silu = false;
};
const JoinedPlan& PlanOf(AutogradContext* ctx, c10::intrusive_ptr<torch::CustomClassHolder>& capsule) {
  capsule = ctx->saved_data["plan"].toCapsule();
  return static_cast<const JoinedPlan&>(*capsule);
}

RotateJoinedArguments RotationOf(const JoinedPlan& plan, const at::Tensor& cos_ND2, const at::Tensor& sin_ND2,
                                 const at::Tensor& like) {
  return {.joined = nullptr,
          .q = nullptr,
          .k = nullptr,
          .v = nullptr,
          .dq = nullptr,
          .dk = nullptr,
          .dv = nullptr,
          .djoined = nullptr,
          .cos = cos_ND2.const_data_ptr<float>(),
          .sin = sin_ND2.const_data_ptr<float>(),
          .rows = like.size(0),
          .query_heads = static_cast<std::int32_t>(plan.query_heads),
          .key_heads = static_cast<std::int32_t>(plan.key_heads),
          .half = static_cast<std::int32_t>(cos_ND2.size(1)),
          .type = KernelTypeOf(like.scalar_type())};
}

class JoinedRotation : public torch::autograd::Function<JoinedRotation> {
 public:
  static variable_list forward(AutogradContext* ctx, const at::Tensor& joined, const at::Tensor& cos,
                               const at::Tensor& sin, const c10::intrusive_ptr<JoinedPlan>& plan) {
    const PartScope norm(Part::kNorm);
    const at::Tensor from = ForKernel(joined), cos_ND2 = ForKernel(cos), sin_ND2 = ForKernel(sin);
    const std::int64_t rows = from.size(0), dim = 2 * cos_ND2.size(1);
    const at::Tensor q = Made(rows, plan->query_heads * dim, from),
                     k = Made(rows, plan->key_heads * dim, from);
    const at::Tensor v = at::empty_like(k);
    RotateJoinedArguments arguments = RotationOf(*plan, cos_ND2, sin_ND2, from);
    arguments.joined = from.const_data_ptr();
    arguments.q = q.mutable_data_ptr();
    arguments.k = k.mutable_data_ptr();
    arguments.v = v.mutable_data_ptr();
    StartKernel(KernelsFor(from, plan->kernels).rotate_joined, "plural::rotate_joined", arguments,
                from.device());
    ctx->save_for_backward({cos_ND2, sin_ND2});
    ctx->saved_data["plan"] = c10::IValue::make_capsule(plan);
    return {q, k, v};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& dy) {
    const PartScope norm(Part::kNorm);
    c10::intrusive_ptr<torch::CustomClassHolder> capsule;
    const JoinedPlan& plan = PlanOf(ctx, capsule);
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor dq = ForKernel(dy[0]), dk = ForKernel(dy[1]), dv = ForKernel(dy[2]);
    const at::Tensor djoined = Made(dq.size(0), dq.size(1) + 2 * dk.size(1), dq);
    RotateJoinedArguments arguments = RotationOf(plan, saved[0], saved[1], dq);
    arguments.dq = dq.const_data_ptr();
    arguments.dk = dk.const_data_ptr();
    arguments.dv = dv.const_data_ptr();
    arguments.djoined = djoined.mutable_data_ptr();
    StartKernel(KernelsFor(dq, plan.kernels).rotate_joined, "plural::rotate_joined_backward", arguments,
                dq.device());
    return {djoined, at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

class JoinedGate : public torch::autograd::Function<JoinedGate> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& gate_up,
                            const c10::intrusive_ptr<JoinedPlan>& plan) {
    const PartScope norm(Part::kNorm);
    const at::Tensor joined = ForKernel(gate_up);
    const at::Tensor out_NF = Made(joined.size(0), joined.size(1) / 2, joined);
    Start(*plan, joined, {}, out_NF);
    ctx->save_for_backward({joined});
    ctx->saved_data["plan"] = c10::IValue::make_capsule(plan);
    return out_NF;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& dy) {
    const PartScope norm(Part::kNorm);
    c10::intrusive_ptr<torch::CustomClassHolder> capsule;
    const JoinedPlan& plan = PlanOf(ctx, capsule);
    const at::Tensor joined = ctx->get_saved_variables()[0];
    const at::Tensor djoined = Made(joined.size(0), joined.size(1), joined);
    Start(plan, joined, ForKernel(dy[0]), djoined);
    return {djoined, at::Tensor()};
  }

 private:
  // `dout` undefined: forward. `made`: the result, or the gradient.
  static void Start(const JoinedPlan& plan, const at::Tensor& joined, const at::Tensor& dout,
                    const at::Tensor& made) {
    const bool back = dout.defined();
    StartKernel(KernelsFor(joined, plan.kernels).gate_joined,
                back ? "plural::gate_joined_backward" : "plural::gate_joined",
                GateJoinedArguments{.joined = joined.const_data_ptr(),
                                    .dout = back ? dout.const_data_ptr() : nullptr,
                                    .rows = joined.size(0),
                                    .width = joined.size(1) / 2,
                                    .silu = plan.silu,
                                    .out = back ? nullptr : made.mutable_data_ptr(),
                                    .djoined = back ? made.mutable_data_ptr() : nullptr,
                                    .type = KernelTypeOf(joined.scalar_type())},
                joined.device());
  }
};

}  // namespace

std::vector<at::Tensor> RotateJoined(const at::Tensor& joined, const RotaryTable& table,
                                     std::int64_t query_heads, std::int64_t key_heads,
                                     const CudaKernels* kernels) {
  const std::int64_t half = table.cos_ND2.size(1);
  if (KernelsFor(joined, kernels).rotate_joined != nullptr && IsFp32OrBf16(joined.scalar_type()) &&
      half % kValuesAtOnce == 0) {
    auto plan = c10::make_intrusive<JoinedPlan>();
    plan->kernels = kernels;
    plan->query_heads = query_heads;
    plan->key_heads = key_heads;
    return JoinedRotation::apply(joined, table.cos_ND2, table.sin_ND2, plan);
  }
  const std::int64_t queries = query_heads * 2 * half, keys = key_heads * 2 * half;
  const std::vector<at::Tensor> parts = joined.split_with_sizes({queries, keys, keys}, 1);
  return {Rotate(parts[0], table), Rotate(parts[1], table), parts[2].contiguous()};
}

at::Tensor GateJoined(Activation activation, const at::Tensor& gate_up, const CudaKernels* kernels) {
  const std::int64_t width = gate_up.size(1) / 2;
  if (KernelsFor(gate_up, kernels).gate_joined != nullptr && IsFp32OrBf16(gate_up.scalar_type()) &&
      width % kValuesAtOnce == 0) {
    auto plan = c10::make_intrusive<JoinedPlan>();
    plan->kernels = kernels;
    plan->silu = activation == Activation::kSilu;
    return JoinedGate::apply(gate_up, plan);
  }
  const std::vector<at::Tensor> parts = gate_up.chunk(2, 1);
  return GatedActivation(activation, parts[0], parts[1]);
}

}  // namespace plural::trainer
