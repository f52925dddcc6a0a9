#include "trainer/model/pointwise.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

namespace plural::trainer {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Outputs {norm} without a branch, {norm, sum} with one.
class Norm : public torch::autograd::Function<Norm> {
 public:
  static variable_list forward(AutogradContext* ctx, const at::Tensor& residual_NE,
                               const std::optional<at::Tensor>& branch_NE, const at::Tensor& weight_E,
                               double eps) {
    const at::Tensor x_NE = branch_NE ? residual_NE + *branch_NE : residual_NE;
    const at::Tensor rstd_N1 = at::rsqrt(x_NE.square().mean(-1, true).add_(eps));
    const at::Tensor norm_NE = (x_NE * rstd_N1).mul_(weight_E);
    ctx->save_for_backward({x_NE, rstd_N1, weight_E});
    ctx->saved_data["branch"] = branch_NE.has_value();
    ctx->set_materialize_grads(false);
    if (!branch_NE) return {norm_NE};
    return {norm_NE, x_NE};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& dy) {
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor& x_NE = saved[0];
    const at::Tensor& rstd_N1 = saved[1];
    const at::Tensor& weight_E = saved[2];
    const bool branch = ctx->saved_data["branch"].toBool();
    const at::Tensor& dnorm_NE = dy[0];
    at::Tensor dx_NE, dweight_E;
    if (dnorm_NE.defined()) {
      // With n = x * rstd: dx = rstd * (g - n * mean(g * n)), g = dnorm * weight.
      const at::Tensor n_NE = x_NE * rstd_N1;
      if (ctx->needs_input_grad(branch ? 2 : 1)) dweight_E = (dnorm_NE * n_NE).sum(0);
      const at::Tensor g_NE = dnorm_NE * weight_E;
      dx_NE = (g_NE - n_NE * (g_NE * n_NE).mean(-1, true)).mul_(rstd_N1);
    }
    if (branch && dy[1].defined()) dx_NE = dx_NE.defined() ? dx_NE.add_(dy[1]) : dy[1];
    return {dx_NE, branch ? dx_NE : at::Tensor(), dweight_E, at::Tensor()};
  }
};

class Gate : public torch::autograd::Function<Gate> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& gate_NF, const at::Tensor& up_NF) {
    ctx->save_for_backward({gate_NF, up_NF});
    return at::silu(gate_NF).mul_(up_NF);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& dy) {
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor& gate_NF = saved[0];
    const at::Tensor& up_NF = saved[1];
    const at::Tensor dgate_NF = at::silu_backward(dy[0] * up_NF, gate_NF);
    return {dgate_NF, at::silu(gate_NF).mul_(dy[0])};
  }
};

// Rotation by the table's angles, or back by them.
at::Tensor RotateBy(const at::Tensor& x, const at::Tensor& cos_ND2, const at::Tensor& sin_ND2, bool back) {
  const std::int64_t half = cos_ND2.size(1);
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
    ctx->save_for_backward({cos_ND2, sin_ND2});
    return RotateBy(x, cos_ND2, sin_ND2, false);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& dy) {
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
