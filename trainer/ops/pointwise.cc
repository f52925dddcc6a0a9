#include "trainer/ops/pointwise.h"

#include <ATen/Dispatch.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/gelu_backward.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/silu_backward.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include <limits>

#include "trainer/kernels/dtypes.h"
#include "trainer/kernels/host_loops.h"
#include "trainer/ops/part_scope.h"
#include "trainer/ops/pointwise_cuda.h"

namespace plural::trainer {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// True where the host loops apply; everything else takes the ATen expressions.
bool OnHost(const at::Tensor& x) { return x.is_cpu(); }

// x in the dtype in which it is computed.
at::Tensor Wide(const at::Tensor& x) { return x.to(ComputedIn(x.scalar_type())); }

template <class T>
const T* PointerOrNull(const at::Tensor& x) {
  return x.defined() ? x.const_data_ptr<T>() : nullptr;
}

// Outputs {norm} without a branch, {norm, sum} with one.
class Norm : public torch::autograd::Function<Norm> {
 public:
  static variable_list forward(AutogradContext* ctx, const at::Tensor& residual_NE,
                               const std::optional<at::Tensor>& branch_NE, const at::Tensor& weight_E,
                               const NormTerms& terms) {
    const PartScope norm(Part::kNorm);
    at::Tensor x_NE = residual_NE.contiguous();
    // 1 + weight keeps the weight's digits in fp32 at least.
    const at::Tensor wide_E = weight_E.to(ComputedIn(x_NE.scalar_type()));
    const at::Tensor factor_E = terms.weight_offset == 0.0 ? wide_E : wide_E + terms.weight_offset;
    at::Tensor rstd_N1, norm_NE;
    if (OnHost(x_NE)) {
      const at::Tensor branch = branch_NE ? branch_NE->contiguous() : at::Tensor();
      const at::Tensor sum_NE = branch_NE ? at::empty_like(x_NE) : x_NE;
      norm_NE = at::empty_like(x_NE);
      rstd_N1 = at::empty({x_NE.size(0), 1}, factor_E.options());
      AT_DISPATCH_FLOATING_TYPES_AND(at::kBFloat16, x_NE.scalar_type(), "norm", [&] {
        host::RmsNorm(x_NE.const_data_ptr<scalar_t>(), PointerOrNull<scalar_t>(branch),
                      factor_E.const_data_ptr<host::Computed<scalar_t>>(), terms.eps, x_NE.size(0),
                      x_NE.size(1), branch_NE ? sum_NE.mutable_data_ptr<scalar_t>() : nullptr,
                      norm_NE.mutable_data_ptr<scalar_t>(),
                      rstd_N1.mutable_data_ptr<host::Computed<scalar_t>>());
      });
      x_NE = sum_NE;
    } else if (const auto fused = NormOnCuda(x_NE, branch_NE, factor_E, terms.eps)) {
      x_NE = fused->sum_NE;
      norm_NE = fused->norm_NE;
      rstd_N1 = fused->rstd_N1;
    } else {
      if (branch_NE) x_NE = x_NE + *branch_NE;
      const at::Tensor wide_NE = Wide(x_NE);
      rstd_N1 = at::rsqrt(wide_NE.square().mean(-1, true).add_(terms.eps));
      rstd_N1.masked_fill_(rstd_N1 == 0, std::numeric_limits<double>::quiet_NaN());  // as in host_loops.cc
      norm_NE = (wide_NE * rstd_N1).mul_(factor_E).to(x_NE.scalar_type());
    }
    ctx->save_for_backward({x_NE, rstd_N1, factor_E});
    ctx->saved_data["branch"] = branch_NE.has_value();
    ctx->set_materialize_grads(false);
    if (!branch_NE) return {norm_NE};
    return {norm_NE, x_NE};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& dy) {
    const PartScope norm(Part::kNorm);
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor& x_NE = saved[0];
    const at::Tensor& rstd_N1 = saved[1];
    const at::Tensor& factor_E = saved[2];
    const bool branch = ctx->saved_data["branch"].toBool();
    const at::Tensor& dnorm_NE = dy[0];
    const at::Tensor dsum_NE = branch ? dy[1] : at::Tensor();
    const bool needs_weight = ctx->needs_input_grad(branch ? 2 : 1);
    at::Tensor dx_NE, dweight_E;
    if (!dnorm_NE.defined()) {
      dx_NE = dsum_NE;
    } else if (OnHost(x_NE)) {
      dx_NE = at::empty_like(x_NE);
      if (needs_weight) dweight_E = at::zeros_like(factor_E);
      const at::Tensor dnorm = dnorm_NE.contiguous();
      const at::Tensor dsum = dsum_NE.defined() ? dsum_NE.contiguous() : dsum_NE;
      AT_DISPATCH_FLOATING_TYPES_AND(at::kBFloat16, x_NE.scalar_type(), "norm", [&] {
        using Wider = host::Computed<scalar_t>;
        host::RmsNormBackward(x_NE.const_data_ptr<scalar_t>(), rstd_N1.const_data_ptr<Wider>(),
                              factor_E.const_data_ptr<Wider>(), dnorm.const_data_ptr<scalar_t>(),
                              PointerOrNull<scalar_t>(dsum), x_NE.size(0), x_NE.size(1),
                              dx_NE.mutable_data_ptr<scalar_t>(),
                              needs_weight ? dweight_E.mutable_data_ptr<Wider>() : nullptr);
      });
    } else if (const auto fused =
                   NormBackwardOnCuda(x_NE, rstd_N1, factor_E, dnorm_NE, dsum_NE, needs_weight)) {
      dx_NE = fused->dx_NE;
      dweight_E = fused->dweight_E;
    } else {
      // With n = x * rstd: dx = rstd * (g - n * mean(g * n)), g = dnorm * factor.
      const at::Tensor n_NE = Wide(x_NE) * rstd_N1;
      if (needs_weight) dweight_E = (dnorm_NE * n_NE).sum(0);
      const at::Tensor g_NE = dnorm_NE * factor_E;
      dx_NE = (g_NE - n_NE * (g_NE * n_NE).mean(-1, true)).mul_(rstd_N1);
      if (dsum_NE.defined()) dx_NE.add_(dsum_NE);
      dx_NE = dx_NE.to(x_NE.scalar_type());
    }
    return {dx_NE, branch ? dx_NE : at::Tensor(), dweight_E, at::Tensor()};
  }
};

class Gate : public torch::autograd::Function<Gate> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& gate, const at::Tensor& up,
                            Activation activation) {
    const PartScope norm(Part::kNorm);
    const at::Tensor gate_NF = gate.contiguous(), up_NF = up.contiguous();
    const bool silu = activation == Activation::kSilu;
    ctx->save_for_backward({gate_NF, up_NF});
    ctx->saved_data["silu"] = silu;
    if (const at::Tensor fused_NF = GatedOnCuda(gate_NF, up_NF, silu); fused_NF.defined()) return fused_NF;
    if (!OnHost(gate_NF)) return (silu ? at::silu(gate_NF) : at::gelu(gate_NF, "tanh")).mul_(up_NF);
    at::Tensor out_NF = at::empty_like(gate_NF);
    AT_DISPATCH_FLOATING_TYPES_AND(at::kBFloat16, gate_NF.scalar_type(), "gate", [&] {
      const auto* gates = gate_NF.const_data_ptr<scalar_t>();
      const auto* ups = up_NF.const_data_ptr<scalar_t>();
      auto* out = out_NF.mutable_data_ptr<scalar_t>();
      if (silu) {
        host::SwiGlu(gates, ups, gate_NF.numel(), out);
      } else {
        host::GeGlu(gates, ups, gate_NF.numel(), out);
      }
    });
    return out_NF;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& dy) {
    const PartScope norm(Part::kNorm);
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor& gate_NF = saved[0];
    const at::Tensor& up_NF = saved[1];
    const bool silu = ctx->saved_data["silu"].toBool();
    if (const auto fused = GatedBackwardOnCuda(gate_NF, up_NF, dy[0], silu)) {
      return {fused->dgate_NF, fused->dup_NF, at::Tensor()};
    }
    if (!OnHost(gate_NF)) {
      const at::Tensor d = dy[0] * up_NF;
      if (silu) return {at::silu_backward(d, gate_NF), at::silu(gate_NF).mul_(dy[0]), at::Tensor()};
      return {at::gelu_backward(d, gate_NF, "tanh"), at::gelu(gate_NF, "tanh").mul_(dy[0]), at::Tensor()};
    }
    const at::Tensor dout_NF = dy[0].contiguous();
    at::Tensor dgate_NF = at::empty_like(gate_NF), dup_NF = at::empty_like(gate_NF);
    AT_DISPATCH_FLOATING_TYPES_AND(at::kBFloat16, gate_NF.scalar_type(), "gate", [&] {
      const auto* gates = gate_NF.const_data_ptr<scalar_t>();
      const auto* ups = up_NF.const_data_ptr<scalar_t>();
      const auto* dout = dout_NF.const_data_ptr<scalar_t>();
      auto* dgate = dgate_NF.mutable_data_ptr<scalar_t>();
      auto* dup = dup_NF.mutable_data_ptr<scalar_t>();
      if (silu) {
        host::SwiGluBackward(gates, ups, dout, gate_NF.numel(), dgate, dup);
      } else {
        host::GeGluBackward(gates, ups, dout, gate_NF.numel(), dgate, dup);
      }
    });
    return {dgate_NF, dup_NF, at::Tensor()};
  }
};

class Cap : public torch::autograd::Function<Cap> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, double cap) {
    at::Tensor y = x.clone(at::MemoryFormat::Contiguous);
    SoftCapInPlace(y, cap);
    ctx->save_for_backward({y});
    ctx->saved_data["cap"] = cap;
    return y;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& dy) {
    const at::Tensor bounded = ctx->get_saved_variables()[0] / ctx->saved_data["cap"].toDouble();
    return {dy[0] * (1.0 - bounded.square()), at::Tensor()};
  }
};

// Rotates by the table's angles, or with `back` by their negatives.
at::Tensor RotateBy(const at::Tensor& x, const at::Tensor& cos_ND2, const at::Tensor& sin_ND2, bool back) {
  const std::int64_t half = cos_ND2.size(1);
  if (OnHost(x)) {
    at::Tensor out = at::empty_like(x);
    AT_DISPATCH_FLOATING_TYPES_AND(at::kBFloat16, x.scalar_type(), "rotate", [&] {
      host::Rotate(x.const_data_ptr<scalar_t>(), cos_ND2.const_data_ptr<host::Computed<scalar_t>>(),
                   sin_ND2.const_data_ptr<host::Computed<scalar_t>>(), back ? -1 : 1, x.size(0),
                   x.size(1) / (2 * half), half, out.mutable_data_ptr<scalar_t>());
    });
    return out;
  }
  if (at::Tensor turned = RotatedOnCuda(x, cos_ND2, sin_ND2, back); turned.defined()) return turned;
  const at::Tensor pairs = x.view({x.size(0), -1, 2, half});
  const at::Tensor first = pairs.select(2, 0);
  const at::Tensor second = pairs.select(2, 1);
  const at::Tensor c = cos_ND2.unsqueeze(1);
  const at::Tensor s = back ? sin_ND2.neg().unsqueeze(1) : sin_ND2.unsqueeze(1);
  return at::stack({first * c - second * s, second * c + first * s}, 2).view(x.sizes()).to(x.scalar_type());
}

class Rotation : public torch::autograd::Function<Rotation> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& cos_ND2,
                            const at::Tensor& sin_ND2) {
    const PartScope norm(Part::kNorm);
    ctx->save_for_backward({cos_ND2, sin_ND2});
    return RotateBy(x, cos_ND2, sin_ND2, false);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& dy) {
    const PartScope norm(Part::kNorm);
    const variable_list saved = ctx->get_saved_variables();
    return {RotateBy(dy[0].contiguous(), saved[0], saved[1], true), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor RmsNorm(const at::Tensor& x_NE, const at::Tensor& weight_E, const NormTerms& terms) {
  return Norm::apply(x_NE, std::optional<at::Tensor>(), weight_E, terms)[0];
}

SumAndNorm AddRmsNorm(const at::Tensor& residual_NE, const at::Tensor& branch_NE, const at::Tensor& weight_E,
                      const NormTerms& terms) {
  const variable_list outputs =
      Norm::apply(residual_NE, std::optional<at::Tensor>(branch_NE), weight_E, terms);
  return {outputs[1], outputs[0]};
}

at::Tensor GatedActivation(Activation activation, const at::Tensor& gate_NF, const at::Tensor& up_NF) {
  return Gate::apply(gate_NF, up_NF, activation);
}

at::Tensor SoftCap(const at::Tensor& x, double cap) { return Cap::apply(x, cap); }

void SoftCapInPlace(at::Tensor& x, double cap) {
  if (!OnHost(x) || x.scalar_type() == at::kBFloat16) {
    x.div_(cap).tanh_().mul_(cap);
    return;
  }
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "soft cap",
                             [&] { host::SoftCap(x.mutable_data_ptr<scalar_t>(), x.numel(), cap); });
}

at::Tensor Rotate(const at::Tensor& x, const RotaryTable& table) {
  return Rotation::apply(x.contiguous(), table.cos_ND2, table.sin_ND2);
}

}  // namespace plural::trainer
