#include "trainer/model/linear.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <utility>

#include "trainer/ops/dropout_cuda.h"
#include "trainer/ops/multiply.h"
#include "trainer/ops/part_scope.h"

namespace plural::trainer {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Adapters with the same input, whose A are one product. A layer with dropout has its own input.
struct AdapterGroup {
  std::vector<std::size_t> layers;
  double p = 0.0;  // dropout
  Dropout dropout;
};

// Values that backward needs besides those of the pass. Layers come with their tensors: a weight is
// read through Linear::Weight, and parameters change between passes only.
struct ProjectPlan : torch::CustomClassHolder {
  std::vector<Linear> layers;
  std::vector<AdapterGroup> adapters;
  JoinedLinear joined;                   // of the layers, or undefined
  const CudaKernels* kernels = nullptr;  // null: those of the module

  bool Joined() const { return joined.weight_OI.defined(); }
  // A layer's columns of what is computed for all.
  at::Tensor ColumnsOf(std::size_t layer, const at::Tensor& y_RO) const {
    std::int64_t begin = 0;
    for (std::size_t l = 0; l < layer; ++l) begin += layers[l].weight_OI.size(0);
    return y_RO.narrow(1, begin, layers[layer].weight_OI.size(0));
  }

  // The dropout places of all adapters where one kernel drops their inputs together; else none.
  std::vector<Dropout> PlacesTogether(const at::Tensor& x_RI) const {
    std::vector<Dropout> places;
    for (const AdapterGroup& group : adapters) {
      if (group.p == 0 || group.p != adapters[0].p) return {};
      places.push_back(group.dropout);
    }
    return DropsTogether(places, x_RI, kernels) ? places : std::vector<Dropout>{};
  }

  // The A factors of a group stacked, [J, I] with J the sum of their ranks, in `dtype`.
  at::Tensor JoinedA(const AdapterGroup& group, at::ScalarType dtype) const {
    if (group.layers.size() == 1) return layers[group.layers[0]].lora.a_KI.to(dtype);
    std::vector<at::Tensor> factors;
    for (const std::size_t l : group.layers) factors.push_back(layers[l].lora.a_KI);
    return at::cat(factors).to(dtype);
  }

  // call(l, lora, part): `part` takes layer l's columns of an [R, J] or its rows of a [J, I] tensor.
  template <class Function>
  void ForEach(const AdapterGroup& group, const Function& call) const {
    std::int64_t begin = 0;
    for (const std::size_t l : group.layers) {
      const LoraFactors& lora = layers[l].lora;
      const std::int64_t rank = lora.a_KI.size(0);
      call(l, lora, [=](const at::Tensor& x, std::int64_t dim) { return x.narrow(dim, begin, rank); });
      begin += rank;
    }
  }
};

// The inputs of a plan's adapters: dropped together where a kernel does so, else each when it is asked for.
class AdapterInputs {
 public:
  AdapterInputs(const ProjectPlan& plan, at::Tensor x_RI) : plan_(plan), x_RI_(std::move(x_RI)) {}
  void Release() { dropped_GRI_.reset(); }

  at::Tensor Of(std::size_t index) {
    const AdapterGroup& group = plan_.adapters[index];
    if (group.p == 0) return x_RI_;
    if (!std::exchange(asked_, true)) {
      const std::vector<Dropout> places = plan_.PlacesTogether(x_RI_);
      if (!places.empty()) dropped_GRI_ = DroppedTogether(places, group.p, x_RI_, plan_.kernels);
    }
    return dropped_GRI_.defined() ? dropped_GRI_.select(0, static_cast<std::int64_t>(index))
                                  : Dropped(group.dropout, group.p, x_RI_);
  }

 private:
  const ProjectPlan& plan_;
  at::Tensor x_RI_, dropped_GRI_;
  bool asked_ = false;
};

// The indices of a layer's tensors among the differentiable inputs, of which x is the first.
struct Inputs {
  std::size_t weight = 0, bias = 0, a = 0, b = 0;
};
std::vector<Inputs> InputsOf(const ProjectPlan& plan) {
  std::vector<Inputs> inputs;
  std::size_t next = 1;
  for (const Linear& layer : plan.layers) {
    Inputs& input = inputs.emplace_back();
    input.weight = next++;
    if (layer.bias_O.defined()) input.bias = next++;
    if (!layer.HasLora()) continue;
    input.a = next++;
    input.b = next++;
  }
  return inputs;
}

// y_l = x W_l^T + b_l + scale_l (dropout(x) A_l^T) B_l^T for all l, side by side where weights are
// joined. `tensors` tells autograd what to differentiate: the weight, bias, A and B of each layer, as
// far as it has them. Saved: x where a weight or factor is trained, and scale x A^T, which is small.
class Project : public torch::autograd::Function<Project> {
 public:
  static variable_list forward(AutogradContext* ctx, const at::Tensor& x_RI, at::TensorList tensors,
                               const c10::intrusive_ptr<ProjectPlan>& plan) {
    const PartScope linear(Part::kLinear);
    const at::ScalarType dtype = x_RI.scalar_type();
    variable_list outputs(plan->layers.size()), saved(1);
    at::Tensor joined_RO;
    if (plan->Joined()) {
      joined_RO = MultiplyTransposed(x_RI, plan->joined.weight_OI.to(dtype));
      if (plan->joined.bias_O.defined()) joined_RO.add_(plan->joined.bias_O);
    }
    const auto project = [&](std::size_t l, const at::Tensor& t_RK, const at::Tensor& b_OK) {
      const Linear& layer = plan->layers[l];
      if (plan->Joined()) {
        plan->ColumnsOf(l, joined_RO).addmm_(t_RK, b_OK.t());
        return;
      }
      outputs[l] = MultiplyTransposed(x_RI, layer.Weight(dtype).Tensor(), t_RK, b_OK);
      if (layer.bias_O.defined()) outputs[l].add_(layer.bias_O);
    };
    AdapterInputs adapter_inputs(*plan, x_RI);
    for (std::size_t g = 0; g < plan->adapters.size(); ++g) {
      const AdapterGroup& group = plan->adapters[g];
      const at::Tensor t_RJ = Inner(group, *plan, adapter_inputs.Of(g));
      plan->ForEach(group, [&](std::size_t l, const LoraFactors& lora, const auto& part) {
        project(l, part(t_RJ, 1).mul_(lora.scale), lora.b_OK.to(dtype));
      });
      saved.push_back(t_RJ);
    }
    if (plan->Joined()) outputs = {joined_RO};
    for (std::size_t l = 0; l < outputs.size(); ++l) {
      if (!outputs[l].defined()) project(l, {}, {});
    }
    bool save_x = false;  // a bias alone does not need it
    for (const at::Tensor& tensor : tensors) save_x |= tensor.requires_grad() && tensor.dim() == 2;
    if (save_x) saved[0] = x_RI;
    ctx->save_for_backward(std::move(saved));
    ctx->saved_data["plan"] = c10::IValue::make_capsule(plan);
    ctx->set_materialize_grads(false);
    return outputs;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& upstream) {
    const PartScope linear(Part::kLinear);
    const auto capsule = ctx->saved_data["plan"].toCapsule();
    const auto& plan = static_cast<const ProjectPlan&>(*capsule);
    variable_list dy = upstream;  // of each layer
    if (plan.Joined()) {
      dy.clear();
      for (std::size_t l = 0; l < plan.layers.size(); ++l) dy.push_back(plan.ColumnsOf(l, upstream[0]));
    }
    const std::vector<Inputs> inputs = InputsOf(plan);
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor& x_RI = saved[0];
    at::Tensor dx_RI;
    std::vector<Factors> to_dx;  // still to be added
    variable_list gradients(std::max({inputs.back().weight, inputs.back().bias, inputs.back().b}) + 2);
    const auto give = [&gradients](std::size_t input, const at::Tensor& gradient, const at::Tensor& like) {
      gradients[input] = gradient.to(like.scalar_type());
    };

    // The products that layers in full add up in one call: up to the first adapter with dropout.
    auto products = std::ranges::count_if(upstream, [](const at::Tensor& dy_RO) { return dy_RO.defined(); });
    for (auto group = plan.adapters.begin(); group != plan.adapters.end() && group->p == 0; ++group)
      ++products;

    for (std::size_t l = 0; l < plan.layers.size(); ++l) {
      const Linear& layer = plan.layers[l];
      const Inputs& input = inputs[l];
      const at::Tensor& dy_RO = dy[l];
      if (!dy_RO.defined()) continue;
      if (ctx->needs_input_grad(input.weight)) {
        give(input.weight, SumOuterProducts(dy_RO, x_RI), layer.weight_OI);
      }
      if (input.bias > 0 && ctx->needs_input_grad(input.bias)) {
        gradients[input.bias] = dy_RO.sum(0, false, layer.bias_O.scalar_type());
      }
      if (plan.Joined() || !ctx->needs_input_grad(0)) continue;
      const HeldWeight weight = layer.Weight(dy_RO.scalar_type());
      to_dx.push_back({dy_RO, weight.Tensor()});
      if (layer.nf4) AddProducts(dx_RI, std::exchange(to_dx, {}), products > 1);  // while the weight is held
    }

    if (plan.Joined() && ctx->needs_input_grad(0)) {
      to_dx.push_back({upstream[0], plan.joined.weight_OI.to(upstream[0].scalar_type())});
    }

    variable_list dt(plan.adapters.size());
    AdapterInputs adapter_inputs(plan, x_RI);
    for (std::size_t g = 0; g < plan.adapters.size(); ++g) {
      const PartScope adapter(Part::kLora);
      const AdapterGroup& group = plan.adapters[g];
      const at::Tensor& t_RJ = saved[g + 1];
      const at::ScalarType dtype = t_RJ.scalar_type();
      const at::Tensor dt_RJ = at::zeros_like(t_RJ);
      bool needs_da = false;
      plan.ForEach(group, [&](std::size_t l, const LoraFactors& lora, const auto& part) {
        if (!dy[l].defined()) return;
        // As the transpose of [K, O]: libraries are twice as fast at it as at a narrow [O, K].
        if (ctx->needs_input_grad(inputs[l].b)) {
          give(inputs[l].b, SumOuterProducts(part(t_RJ, 1), dy[l]).t(), lora.b_OK);
        }
        part(dt_RJ, 1).copy_(MultiplyNarrow(dy[l], lora.b_OK.to(dtype)).mul_(lora.scale));
        needs_da |= ctx->needs_input_grad(inputs[l].a);
      });
      if (needs_da) {
        const at::Tensor da_JI = SumOuterProducts(dt_RJ, adapter_inputs.Of(g));
        plan.ForEach(group, [&](std::size_t l, const LoraFactors& lora, const auto& part) {
          if (dy[l].defined()) give(inputs[l].a, part(da_JI, 0), lora.a_KI);
        });
      }
      dt[g] = dt_RJ;
    }
    adapter_inputs.Release();
    if (ctx->needs_input_grad(0)) AddInputGradient(plan, dt, std::move(to_dx), dx_RI);
    gradients[0] = std::move(dx_RI);
    return gradients;
  }

 private:
  // The products that are still to be added, and what the adapters add to the gradient of x.
  static void AddInputGradient(const ProjectPlan& plan, const variable_list& dt, std::vector<Factors> to_dx,
                               at::Tensor& dx_RI) {
    const auto a_of = [&](std::size_t g) { return plan.JoinedA(plan.adapters[g], dt[g].scalar_type()); };
    const bool dropped = !plan.adapters.empty() && plan.adapters[0].p > 0;
    if (dropped) {
      AddProducts(dx_RI, std::exchange(to_dx, {}));
      const PartScope adapter(Part::kLora);
      if (const std::vector<Dropout> places = plan.PlacesTogether(dx_RI); !places.empty()) {
        const auto groups = static_cast<std::int64_t>(dt.size());
        const at::Tensor dx_GRI = at::empty({groups, dx_RI.size(0), dx_RI.size(1)}, dx_RI.options());
        for (std::size_t g = 0; g < dt.size(); ++g) {
          at::Tensor of_group = dx_GRI.select(0, static_cast<std::int64_t>(g));
          at::mm_out(of_group, dt[g], a_of(g));
        }
        return AddDropped(dx_RI, places, plan.adapters[0].p, dx_GRI, plan.kernels);
      }
    }
    for (std::size_t g = 0; g < dt.size(); ++g) {
      const AdapterGroup& group = plan.adapters[g];
      if (group.p > 0) {
        const PartScope adapter(Part::kLora);
        dx_RI.add_(Dropped(group.dropout, group.p, at::mm(dt[g], a_of(g))));
      } else {
        to_dx.push_back({dt[g], a_of(g)});
      }
    }
    AddProducts(dx_RI, to_dx);  // one with those of the weights, which are most of it
  }

  // Input A^T of all adapters of a group, [R, J].
  static at::Tensor Inner(const AdapterGroup& group, const ProjectPlan& plan, const at::Tensor& input_RI) {
    const PartScope adapter(Part::kLora);
    const at::ScalarType dtype = input_RI.scalar_type();
    return MultiplyNarrow(input_RI, plan.JoinedA(group, dtype).t()).to(dtype);
  }
};

// The layers' results, or where weights are joined one with all of them.
variable_list ProjectAll(std::initializer_list<const Linear*> layers, const JoinedLinear& joined,
                         const at::Tensor& x_RI, const Dropout& dropout, const CudaKernels* kernels) {
  variable_list tensors;
  auto plan = c10::make_intrusive<ProjectPlan>();
  plan->joined = joined;
  plan->kernels = kernels;
  AdapterGroup undropped;
  for (const Linear* layer : layers) {
    const std::size_t l = plan->layers.size();
    plan->layers.push_back(*layer);
    tensors.push_back(layer->weight_OI);
    if (layer->bias_O.defined()) tensors.push_back(layer->bias_O);
    if (!layer->HasLora()) continue;
    tensors.insert(tensors.end(), {layer->lora.a_KI, layer->lora.b_OK});
    if (dropout && layer->lora.dropout > 0) {
      plan->adapters.push_back({{l}, layer->lora.dropout, dropout.At(l)});
    } else {
      undropped.layers.push_back(l);
    }
  }
  if (!undropped.layers.empty()) plan->adapters.push_back(std::move(undropped));
  return Project::apply(x_RI, at::TensorList(tensors), plan);
}

}  // namespace

HeldWeight Linear::Weight(at::ScalarType dtype) const {
  return nf4 ? nf4->DequantizedInScratch(dtype) : HeldWeight(weight_OI.to(dtype));
}

at::Tensor Linear::ForwardUnrounded(const at::Tensor& x_RI) const {
  const at::ScalarType dtype = x_RI.scalar_type();
  at::Tensor y_RO = nf4 ? MultiplyRows(x_RI, *nf4) : MultiplyRows(x_RI, weight_OI.to(dtype));
  if (bias_O.defined()) y_RO.add_(bias_O);
  if (HasLora()) {
    const at::Tensor t_RK = MultiplyRows(x_RI, lora.a_KI.to(dtype)).mul_(lora.scale).to(dtype);
    MultiplyRows(t_RK, lora.b_OK.to(dtype), y_RO);
  }
  return y_RO;
}

std::vector<at::Tensor> ForwardTogether(std::initializer_list<const Linear*> layers, const at::Tensor& x_RI,
                                        const Dropout& dropout, const CudaKernels* kernels) {
  if (!c10::GradMode::is_enabled() && !dropout) {
    std::vector<at::Tensor> outputs;
    for (const Linear* layer : layers)
      outputs.push_back(layer->ForwardUnrounded(x_RI).to(x_RI.scalar_type()));
    return outputs;
  }
  return ProjectAll(layers, {}, x_RI, dropout, kernels);
}

at::Tensor ForwardJoined(std::initializer_list<const Linear*> layers, const JoinedLinear& joined,
                         const at::Tensor& x_RI, const Dropout& dropout, const CudaKernels* kernels) {
  if (c10::GradMode::is_enabled() || dropout) return ProjectAll(layers, joined, x_RI, dropout, kernels)[0];
  const at::ScalarType dtype = x_RI.scalar_type();
  at::Tensor y_RO = MultiplyRows(x_RI, joined.weight_OI.to(dtype));
  if (joined.bias_O.defined()) y_RO.add_(joined.bias_O);
  std::int64_t begin = 0;
  for (const Linear* layer : layers) {
    const LoraFactors& lora = layer->lora;
    const std::int64_t outputs = layer->weight_OI.size(0);
    if (layer->HasLora()) {
      const at::Tensor t_RK = MultiplyRows(x_RI, lora.a_KI.to(dtype)).mul_(lora.scale).to(dtype);
      y_RO.narrow(1, begin, outputs).add_(MultiplyRows(t_RK, lora.b_OK.to(dtype)));
    }
    begin += outputs;
  }
  return y_RO.to(dtype);
}

at::Tensor Linear::Forward(const at::Tensor& x_RI, const Dropout& dropout) const {
  return ForwardTogether({this}, x_RI, dropout)[0];
}

}  // namespace plural::trainer
