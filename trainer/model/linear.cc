#include "trainer/model/linear.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/mm.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/custom_function.h>

#include "trainer/model/multiply.h"
#include "trainer/model/part_scope.h"

namespace plural::trainer {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// What backward needs of the layers besides tensors.
struct ProjectPlan : torch::CustomClassHolder {
  struct Layer {
    bool bias = false;
    bool lora = false;
    double scale = 1.0;
    double p = 0.0;  // dropout
    Dropout dropout;
  };
  std::vector<Layer> layers;
};

at::Tensor Dropped(const at::Tensor& x_RI, const ProjectPlan::Layer& layer) {
  return layer.p > 0 ? x_RI * DropoutFactors(layer.dropout, layer.p, x_RI) : x_RI;
}

// y_l = x W_l^T + b_l + scale_l (dropout(x) A_l^T) B_l^T for all l. `tensors` lists each layer's weight, then
// its bias if it has one, A and B if it has an adapter. Saved: x where a weight or factor is trained, and
// scale x A^T, which is small.
class Project : public torch::autograd::Function<Project> {
 public:
  static variable_list forward(AutogradContext* ctx, const at::Tensor& x_RI, at::TensorList tensors,
                               const c10::intrusive_ptr<ProjectPlan>& plan) {
    const PartScope linear(Part::kLinear);
    variable_list outputs, saved(1);
    bool save_x = false;
    std::size_t next = 0;
    for (const ProjectPlan::Layer& layer : plan->layers) {
      const at::Tensor& weight_OI = tensors[next++];
      save_x |= weight_OI.requires_grad();
      saved.push_back(weight_OI);
      at::Tensor y_RO = MultiplyTransposed(x_RI, weight_OI);
      if (layer.bias) y_RO.add_(tensors[next++]);
      if (layer.lora) {
        const PartScope lora(Part::kLora);
        const at::Tensor& a_KI = tensors[next++];
        const at::Tensor& b_OK = tensors[next++];
        const at::Tensor t_RK = at::mm(Dropped(x_RI, layer), a_KI.t()).mul_(layer.scale);
        y_RO.addmm_(t_RK, b_OK.t());
        save_x |= a_KI.requires_grad();
        saved.insert(saved.end(), {a_KI, b_OK, t_RK});
      }
      outputs.push_back(std::move(y_RO));
    }
    if (save_x) saved[0] = x_RI;
    ctx->save_for_backward(std::move(saved));
    ctx->saved_data["plan"] = c10::IValue::make_capsule(plan);
    ctx->set_materialize_grads(false);
    return outputs;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& dy) {
    const PartScope linear(Part::kLinear);
    const auto capsule = ctx->saved_data["plan"].toCapsule();
    const auto& plan = static_cast<const ProjectPlan&>(*capsule);
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor& x_RI = saved[0];
    const bool needs_dx = ctx->needs_input_grad(0);
    at::Tensor dx_RI;
    variable_list gradients(1);
    std::size_t next = 1;   // into saved
    std::size_t input = 1;  // into the differentiable inputs
    for (std::size_t l = 0; l < plan.layers.size(); ++l) {
      const ProjectPlan::Layer& layer = plan.layers[l];
      const at::Tensor& dy_RO = dy[l];
      const at::Tensor& weight_OI = saved[next++];
      at::Tensor dweight_OI;
      if (dy_RO.defined()) {
        if (ctx->needs_input_grad(input)) dweight_OI = at::mm(dy_RO.t(), x_RI);
        if (needs_dx) {
          at::Tensor part_RI = Multiply(dy_RO, weight_OI);
          dx_RI = dx_RI.defined() ? dx_RI.add_(part_RI) : std::move(part_RI);
        }
      }
      ++input;
      gradients.push_back(std::move(dweight_OI));
      if (layer.bias) {
        const bool needs_dbias = dy_RO.defined() && ctx->needs_input_grad(input);
        gradients.push_back(needs_dbias ? dy_RO.sum(0) : at::Tensor());
        ++input;
      }
      if (!layer.lora) continue;

      const PartScope lora(Part::kLora);
      const at::Tensor& a_KI = saved[next++];
      const at::Tensor& b_OK = saved[next++];
      const at::Tensor& t_RK = saved[next++];
      at::Tensor da_KI, db_OK;
      if (dy_RO.defined()) {
        if (ctx->needs_input_grad(input + 1)) db_OK = at::mm(dy_RO.t(), t_RK);
        const bool needs_da = ctx->needs_input_grad(input);
        if (needs_da || needs_dx) {
          const at::Tensor dt_RK = at::mm(dy_RO, b_OK).mul_(layer.scale);
          if (needs_da) da_KI = at::mm(dt_RK.t(), Dropped(x_RI, layer));
          if (needs_dx && layer.p > 0) {
            dx_RI.addcmul_(at::mm(dt_RK, a_KI), DropoutFactors(layer.dropout, layer.p, dx_RI));
          } else if (needs_dx) {
            dx_RI.addmm_(dt_RK, a_KI);
          }
        }
      }
      input += 2;
      gradients.push_back(std::move(da_KI));
      gradients.push_back(std::move(db_OK));
    }
    gradients[0] = std::move(dx_RI);
    gradients.emplace_back();  // plan
    return gradients;
  }
};

// Without gradients: nothing is saved, and no row's result depends on the rows beside it.
at::Tensor Infer(const Linear& layer, const at::Tensor& x_RI) {
  at::Tensor y_RO = MultiplyRows(x_RI, layer.weight_OI);
  if (layer.bias_O.defined()) y_RO.add_(layer.bias_O);
  if (layer.HasLora()) {
    MultiplyRows(MultiplyRows(x_RI, layer.lora.a_KI).mul_(layer.lora.scale), layer.lora.b_OK, y_RO);
  }
  return y_RO;
}

}  // namespace

std::vector<at::Tensor> ForwardTogether(std::initializer_list<const Linear*> layers, const at::Tensor& x_RI,
                                        const Dropout& dropout) {
  if (!c10::GradMode::is_enabled() && !dropout) {
    std::vector<at::Tensor> outputs;
    for (const Linear* layer : layers) outputs.push_back(Infer(*layer, x_RI));
    return outputs;
  }
  variable_list tensors;
  auto plan = c10::make_intrusive<ProjectPlan>();
  std::uint64_t index = 0;
  for (const Linear* layer : layers) {
    tensors.push_back(layer->weight_OI);
    ProjectPlan::Layer planned;
    planned.bias = layer->bias_O.defined();
    if (planned.bias) tensors.push_back(layer->bias_O);
    planned.lora = layer->HasLora();
    if (planned.lora) {
      tensors.insert(tensors.end(), {layer->lora.a_KI, layer->lora.b_OK});
      planned.scale = layer->lora.scale;
      planned.p = dropout ? layer->lora.dropout : 0.0;
      planned.dropout = dropout.At(index);
    }
    ++index;
    plan->layers.push_back(planned);
  }
  return Project::apply(x_RI, at::TensorList(tensors), plan);
}

at::Tensor Linear::Forward(const at::Tensor& x_RI, const Dropout& dropout) const {
  return ForwardTogether({this}, x_RI, dropout)[0];
}

}  // namespace plural::trainer
