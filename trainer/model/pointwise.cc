#include "trainer/model/pointwise.h"

#include <ATen/Dispatch.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/silu_backward.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include <limits>

#include "trainer/model/host_loops.h"
#include "trainer/model/part_scope.h"

namespace plural::trainer {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Where the host loops serve; everything else takes the ATen expressions.
bool OnHost(const at::Tensor& x) {
  return x.is_cpu() && (x.scalar_type() == at::kFloat || x.scalar_type() == at::kDouble);
}

template <class T>
const T* PointerOrNull(const at::Tensor& x) {
  return x.defined() ? x.const_data_ptr<T>() : nullptr;
}

// Outputs {norm} without a branch, {norm, sum} with one.
class Norm : public torch::autograd::Function<Norm> {
 public:
  static variable_list forward(AutogradContext* ctx, const at::Tensor& residual_NE,
                               const std::optional<at::Tensor>& branch_NE, const at::Tensor& weight_E,
                               double eps) {
    const PartScope norm(Part::kNorm);
    at::Tensor x_NE = residual_NE.contiguous();
    at::Tensor rstd_N1, norm_NE;
    if (OnHost(x_NE)) {
      const at::Tensor branch = branch_NE ? branch_NE->contiguous() : at::Tensor();
      const at::Tensor sum_NE = branch_NE ? at::empty_like(x_NE) : x_NE;
      norm_NE = at::empty_like(x_NE);
      rstd_N1 = at::empty({x_NE.size(0), 1}, x_NE.options());
      AT_DISPATCH_FLOATING_TYPES(x_NE.scalar_type(), "norm", [&] {
        host::RmsNorm(x_NE.const_data_ptr<scalar_t>(), PointerOrNull<scalar_t>(branch),
                      weight_E.const_data_ptr<scalar_t>(), eps, x_NE.size(0), x_NE.size(1),
                      branch_NE ? sum_NE.mutable_data_ptr<scalar_t>() : nullptr,
                      norm_NE.mutable_data_ptr<scalar_t>(), rstd_N1.mutable_data_ptr<scalar_t>());
      });
      x_NE = sum_NE;
    } else {
      if (branch_NE) x_NE = x_NE + *branch_NE;
      rstd_N1 = at::rsqrt(x_NE.square().mean(-1, true).add_(eps));
      rstd_N1.masked_fill_(rstd_N1 == 0, std::numeric_limits<double>::quiet_NaN());  // as in host_loops.cc
      norm_NE = (x_NE * rstd_N1).mul_(weight_E);
    }
    ctx->save_for_backward({x_NE, rstd_N1, weight_E});
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
    const at::Tensor& weight_E = saved[2];
    const bool branch = ctx->saved_data["branch"].toBool();
    const at::Tensor& dnorm_NE = dy[0];
    const at::Tensor dsum_NE = branch ? dy[1] : at::Tensor();
    const bool needs_weight = ctx->needs_input_grad(branch ? 2 : 1);
    at::Tensor dx_NE, dweight_E;
    if (!dnorm_NE.defined()) {
      dx_NE = dsum_NE;
    } else if (OnHost(x_NE)) {
      dx_NE = at::empty_like(x_NE);
      if (needs_weight) dweight_E = at::zeros_like(weight_E);
      const at::Tensor dnorm = dnorm_NE.contiguous();
      const at::Tensor dsum = dsum_NE.defined() ? dsum_NE.contiguous() : dsum_NE;
      AT_DISPATCH_FLOATING_TYPES(x_NE.scalar_type(), "norm", [&] {
        host::RmsNormBackward(x_NE.const_data_ptr<scalar_t>(), rstd_N1.const_data_ptr<scalar_t>(),
                              weight_E.const_data_ptr<scalar_t>(), dnorm.const_data_ptr<scalar_t>(),
                              PointerOrNull<scalar_t>(dsum), x_NE.size(0), x_NE.size(1),
                              dx_NE.mutable_data_ptr<scalar_t>(),
                              needs_weight ? dweight_E.mutable_data_ptr<scalar_t>() : nullptr);
      });
    } else {
      // With n = x * rstd: dx = rstd * (g - n * mean(g * n)), g = dnorm * weight.
      const at::Tensor n_NE = x_NE * rstd_N1;
      if (needs_weight) dweight_E = (dnorm_NE * n_NE).sum(0);
      const at::Tensor g_NE = dnorm_NE * weight_E;
      dx_NE = (g_NE - n_NE * (g_NE * n_NE).mean(-1, true)).mul_(rstd_N1);
      if (dsum_NE.defined()) dx_NE.add_(dsum_NE);
    }
    return {dx_NE, branch ? dx_NE : at::Tensor(), dweight_E, at::Tensor()};
  }
};

class Gate : public torch::autograd::Function<Gate> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& gate_NF, const at::Tensor& up_NF) {
    const PartScope norm(Part::kNorm);
    ctx->save_for_backward({gate_NF, up_NF});
    if (!OnHost(gate_NF)) return at::silu(gate_NF).mul_(up_NF);
    at::Tensor out_NF = at::empty_like(gate_NF);
    AT_DISPATCH_FLOATING_TYPES(gate_NF.scalar_type(), "gate", [&] {
      host::SwiGlu(gate_NF.const_data_ptr<scalar_t>(), up_NF.const_data_ptr<scalar_t>(), gate_NF.numel(),
                   out_NF.mutable_data_ptr<scalar_t>());
    });
    return out_NF;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& dy) {
    const PartScope norm(Part::kNorm);
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor& gate_NF = saved[0];
    const at::Tensor& up_NF = saved[1];
    if (!OnHost(gate_NF)) {
      return {at::silu_backward(dy[0] * up_NF, gate_NF), at::silu(gate_NF).mul_(dy[0])};
    }
    const at::Tensor dout_NF = dy[0].contiguous();
    at::Tensor dgate_NF = at::empty_like(gate_NF), dup_NF = at::empty_like(gate_NF);
    AT_DISPATCH_FLOATING_TYPES(gate_NF.scalar_type(), "gate", [&] {
      host::SwiGluBackward(gate_NF.const_data_ptr<scalar_t>(), up_NF.const_data_ptr<scalar_t>(),
                           dout_NF.const_data_ptr<scalar_t>(), gate_NF.numel(),
                           dgate_NF.mutable_data_ptr<scalar_t>(), dup_NF.mutable_data_ptr<scalar_t>());
    });
    return {dgate_NF, dup_NF};
  }
};

// Rotation by the table's angles, or back by them.
at::Tensor RotateBy(const at::Tensor& x, const at::Tensor& cos_ND2, const at::Tensor& sin_ND2, bool back) {
  const std::int64_t half = cos_ND2.size(1);
  if (OnHost(x)) {
    at::Tensor out = at::empty_like(x);
    AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "rotate", [&] {
      host::Rotate(x.const_data_ptr<scalar_t>(), cos_ND2.const_data_ptr<scalar_t>(),
                   sin_ND2.const_data_ptr<scalar_t>(), back ? -1 : 1, x.size(0), x.size(1) / (2 * half), half,
                   out.mutable_data_ptr<scalar_t>());
    });
    return out;
  }
  const at::Tensor pairs = x.view({x.size(0), -1, 2, half});
  const at::Tensor first = pairs.select(2, 0);
  const at::Tensor second = pairs.select(2, 1);
  const at::Tensor c = cos_ND2.unsqueeze(1);
  const at::Tensor s = back ? sin_ND2.neg().unsqueeze(1) : sin_ND2.unsqueeze(1);
  return at::stack({first * c - second * s, second * c + first * s}, 2).view(x.sizes());
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

at::Tensor RmsNorm(const at::Tensor& x_NE, const at::Tensor& weight_E, double eps) {
  return Norm::apply(x_NE, std::optional<at::Tensor>(), weight_E, eps)[0];
}

SumAndNorm AddRmsNorm(const at::Tensor& residual_NE, const at::Tensor& branch_NE, const at::Tensor& weight_E,
                      double eps) {
  const variable_list outputs = Norm::apply(residual_NE, std::optional<at::Tensor>(branch_NE), weight_E, eps);
  return {outputs[1], outputs[0]};
}

at::Tensor SwiGlu(const at::Tensor& gate_NF, const at::Tensor& up_NF) { return Gate::apply(gate_NF, up_NF); }

RotaryTable MakeRotaryTable(const at::Tensor& position_N, std::int64_t head_dim, double theta,
                            at::ScalarType dtype) {
  const PartScope norm(Part::kNorm);
  const auto options = at::TensorOptions().dtype(dtype).device(position_N.device());
  const at::Tensor exponent = at::arange(0, head_dim, 2, options).div_(static_cast<double>(head_dim));
  const at::Tensor frequency = at::pow(theta, exponent).reciprocal_();
  const at::Tensor angle = position_N.to(dtype).unsqueeze(1) * frequency;
  return {angle.cos(), angle.sin()};
}

at::Tensor Rotate(const at::Tensor& x, const RotaryTable& table) {
  return Rotation::apply(x, table.cos_ND2, table.sin_ND2);
}

}  // namespace plural::trainer
