#include "trainer/ops/recompute.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include <utility>

namespace plural::trainer {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct HeldRegion : torch::CustomClassHolder {
  explicit HeldRegion(Region given) : region(std::move(given)) {}
  Region region;
};

class Recompute : public torch::autograd::Function<Recompute> {
 public:
  // `anchor` requires a gradient and gets none: without it autograd would skip a region whose
  // inputs need no gradient, together with the parameters inside.
  static variable_list forward(AutogradContext* ctx, at::TensorList inputs, const at::Tensor& /*anchor*/,
                               const c10::intrusive_ptr<HeldRegion>& held) {
    variable_list outputs;
    {
      // As in backward, so that the same kernels run; what they save is freed at once.
      const c10::AutoGradMode grad(true);
      variable_list given;
      for (const at::Tensor& input : inputs) given.push_back(input.detach());
      outputs = held->region(given);
    }
    for (at::Tensor& output : outputs) output = output.detach();
    ctx->save_for_backward(inputs.vec());
    ctx->saved_data["region"] = c10::IValue::make_capsule(held);
    ctx->set_materialize_grads(false);
    return outputs;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& dy) {
    const auto capsule = ctx->saved_data["region"].toCapsule();
    const auto& held = static_cast<const HeldRegion&>(*capsule);
    const c10::AutoGradMode grad(true);
    variable_list inputs;
    for (const at::Tensor& saved : ctx->get_saved_variables()) {
      inputs.push_back(saved.detach().set_requires_grad(ctx->needs_input_grad(inputs.size())));
    }
    variable_list roots, gradients;
    const variable_list outputs = held.region(inputs);
    for (std::size_t i = 0; i < outputs.size(); ++i) {
      if (!dy[i].defined() || !outputs[i].requires_grad()) continue;
      roots.push_back(outputs[i]);
      gradients.push_back(dy[i]);
    }
    torch::autograd::backward(roots, gradients);
    variable_list of_inputs;
    for (const at::Tensor& input : inputs) of_inputs.push_back(input.grad());
    of_inputs.resize(of_inputs.size() + 2);  // anchor, region
    return of_inputs;
  }
};

}  // namespace

std::vector<at::Tensor> Recomputed(const Region& region, const std::vector<at::Tensor>& inputs) {
  if (!c10::GradMode::is_enabled()) return region(inputs);
  const at::Tensor anchor = at::empty({0}, inputs.front().options()).set_requires_grad(true);
  return Recompute::apply(at::TensorList(inputs), anchor, c10::make_intrusive<HeldRegion>(region));
}

}  // namespace plural::trainer
