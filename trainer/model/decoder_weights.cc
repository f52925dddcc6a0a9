// The decoder's tensors: where they lie, how they are named, which are trained. Its forward is in decoder.cc.
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <set>
#include <span>
#include <stdexcept>
#include <string_view>

#include "trainer/base/error.h"
#include "trainer/kernels/dtypes.h"
#include "trainer/model/decoder.h"
#include "trainer/model/random_weights.h"

namespace plural::trainer {
namespace {

struct Slot {
  std::string_view path;  // inside "model.layers.<l>.", as in LinearShape
  Linear Decoder::Layer::*linear;
};
constexpr std::array<Slot, 9> kSlots = {{
    {"self_attn.q_proj", &Decoder::Layer::q_proj},
    {"self_attn.k_proj", &Decoder::Layer::k_proj},
    {"self_attn.v_proj", &Decoder::Layer::v_proj},
    {"self_attn.qkv_proj", &Decoder::Layer::qkv_proj},
    {"self_attn.o_proj", &Decoder::Layer::o_proj},
    {"mlp.gate_proj", &Decoder::Layer::gate_proj},
    {"mlp.up_proj", &Decoder::Layer::up_proj},
    {"mlp.gate_up_proj", &Decoder::Layer::gate_up_proj},
    {"mlp.down_proj", &Decoder::Layer::down_proj},
}};

// Layers with one input.
struct JoinedSlot {
  std::array<std::string_view, 3> paths;  // as in Slot
  JoinedLinear Decoder::Layer::*joined;
};
constexpr std::array<JoinedSlot, 2> kJoinedSlots = {{
    {{"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"}, &Decoder::Layer::qkv},
    {{"mlp.gate_proj", "mlp.up_proj"}, &Decoder::Layer::gate_up},
}};

struct NormSlot {
  const char* path;
  at::Tensor Decoder::Layer::*weight;
  bool of_heads = false;
};
// The name post_attention_layernorm has two meanings: with output norms it is one of them.
constexpr std::array<NormSlot, 4> kNorms = {{
    {"input_layernorm", &Decoder::Layer::attention_norm},
    {"post_attention_layernorm", &Decoder::Layer::feed_forward_norm},
    {"self_attn.q_norm", &Decoder::Layer::q_norm, true},
    {"self_attn.k_norm", &Decoder::Layer::k_norm, true},
}};
constexpr std::array<NormSlot, 6> kNormsWithOutputs = {{
    {"input_layernorm", &Decoder::Layer::attention_norm},
    {"post_attention_layernorm", &Decoder::Layer::attention_output_norm},
    {"pre_feedforward_layernorm", &Decoder::Layer::feed_forward_norm},
    {"post_feedforward_layernorm", &Decoder::Layer::feed_forward_output_norm},
    {"self_attn.q_norm", &Decoder::Layer::q_norm, true},
    {"self_attn.k_norm", &Decoder::Layer::k_norm, true},
}};
std::span<const NormSlot> NormSlots(const ModelConfig& config) {
  if (config.output_norms) return kNormsWithOutputs;
  return kNorms;
}

template <class Layer>
auto& LinearAt(Layer& layer, const std::string& path) {
  const auto* slot =
      std::find_if(kSlots.begin(), kSlots.end(), [&](const Slot& s) { return s.path == path; });
  return layer.*slot->linear;
}
constexpr const char* kHead = "lm_head";

std::string LayerPrefix(std::size_t layer) { return "model.layers." + std::to_string(layer) + "."; }

}  // namespace

Decoder::Decoder(const ModelConfig& config, at::ScalarType dtype, at::Device device,
                 std::optional<at::ScalarType> weight_dtype, Linears linears, Joins joins)
    : config_(config), dtype_(dtype), device_(device), joins_(joins == Joins::kAlways || !device.is_cpu()) {
  const auto options = at::TensorOptions().dtype(weight_dtype.value_or(dtype)).device(device);
  const std::int64_t hidden = config.hidden_size;
  embed_tokens_ = at::empty({config.vocab_size, hidden}, options);
  norm_ = at::empty({hidden}, options);
  for (std::int64_t l = 0; l < config.num_hidden_layers; ++l) {
    Layer& layer = layers_.emplace_back();
    for (const LinearShape& shape : config.LayerLinears()) {
      Linear& linear = LinearAt(layer, shape.path);
      linear.weight_OI = linears == Linears::kNow
                             ? NewMemory(layer, shape, /*bias=*/false, options)
                             : at::empty({shape.out_features, shape.in_features}, options.device(at::kMeta));
      if (shape.bias) linear.bias_O = NewMemory(layer, shape, /*bias=*/true, options);
    }
    for (const NormSlot& slot : NormSlots(config)) {
      if (slot.of_heads && !config.qk_norm) continue;
      layer.*slot.weight = at::empty({slot.of_heads ? config.head_dim : hidden}, options);
    }
  }
  head_.linear.weight_OI =
      config.tie_word_embeddings ? embed_tokens_ : at::empty({config.vocab_size, hidden}, options);
  head_.softcap = config.final_logit_softcapping;
}

at::Tensor Decoder::NewMemory(Layer& layer, const LinearShape& shape, bool bias,
                              const at::TensorOptions& options) const {
  const auto make = [&](std::int64_t rows) {
    return bias ? at::empty({rows}, options) : at::empty({rows, shape.in_features}, options);
  };
  for (const JoinedSlot& slot : kJoinedSlots) {
    if (!joins_ || std::ranges::find(slot.paths, shape.path) == slot.paths.end()) continue;
    std::int64_t begin = 0, rows = 0;
    for (const LinearShape& other : config_.LayerLinears()) {
      if (std::ranges::find(slot.paths, other.path) == slot.paths.end()) continue;
      if (other.path == shape.path) begin = rows;
      rows += other.out_features;
    }
    at::Tensor& joined = bias ? (layer.*slot.joined).bias_O : (layer.*slot.joined).weight_OI;
    if (!joined.defined()) joined = make(rows);
    const at::AutoDispatchBelowADInplaceOrView plain;  // to autograd each is a tensor of its own
    return joined.narrow(0, begin, shape.out_features);
  }
  return make(shape.out_features);
}

const Linear* Decoder::FindLinear(const std::string& parameter) const {
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    const std::string prefix = LayerPrefix(l);
    if (!parameter.starts_with(prefix)) continue;
    for (const LinearShape& shape : config_.LayerLinears()) {
      if (parameter == prefix + shape.path + ".weight") return &LinearAt(layers_[l], shape.path);
    }
  }
  return nullptr;
}

Linear& Decoder::LinearOf(const std::string& parameter) {
  const Linear* linear = FindLinear(parameter);
  if (linear == nullptr) throw std::logic_error(parameter + " is no linear weight of a layer");
  return const_cast<Linear&>(*linear);
}

at::Tensor Decoder::SetFull(const std::string& parameter) {
  Linear& linear = LinearOf(parameter);
  if (!linear.weight_OI.is_meta()) return linear.weight_OI;
  const at::TensorOptions options = linear.weight_OI.options().device(device_);
  for (Layer& layer : layers_) {
    for (const LinearShape& shape : config_.LayerLinears()) {
      if (&LinearAt(layer, shape.path) != &linear) continue;
      linear.weight_OI = NewMemory(layer, shape, /*bias=*/false, options);
      linear.nf4 = nullptr;
    }
  }
  return linear.weight_OI;
}

void Decoder::SetNf4(const std::string& parameter, const Nf4Weight& weight) {
  Linear& linear = LinearOf(parameter);
  auto placed = std::make_shared<Nf4Weight>(weight.To(device_));
  placed->scratch = nf4_scratch_;
  linear.weight_OI = at::empty_like(linear.weight_OI, at::TensorOptions().device(at::kMeta));
  linear.nf4 = std::move(placed);
}

const Nf4Weight* Decoder::Nf4(const std::string& parameter) const {
  const Linear* linear = FindLinear(parameter);
  return linear == nullptr ? nullptr : linear->nf4.get();
}

void Decoder::InitializeRandom(std::uint64_t seed) {
  for (const auto& [name, tensor] : BaseParameters()) {
    if (tensor.dim() == 1) {
      const c10::AutoGradMode no_grad(false);
      tensor.fill_(name.ends_with(".bias") ? 0.0 : 1.0 - config_.norm_weight_offset);
    } else {
      FillNormal(tensor, config_.initializer_range, DrawsFor(seed, name));
    }
  }
}

void Decoder::AddAdapter(const AdapterSettings& settings, std::uint64_t seed) {
  const std::vector<LinearShape> shapes = config_.LayerLinears();
  std::set<std::string> single;  // a target is a kind of layer, or the path of a single one
  for (const LinearShape& shape : shapes) {
    for (std::size_t l = 0; l < layers_.size(); ++l) single.insert(LayerPrefix(l) + shape.path);
  }
  for (const std::string& target : settings.targets) {
    if (!single.contains(target)) config_.LinearNamed(target);  // refuses an unknown kind
  }
  if (settings.targets.empty()) {
    throw ExitError(ExitCode::kBadRecipe,
                    "adapter.targets: empty; name at least one of " + config_.LinearNames());
  }
  if (settings.rank < 1) {
    throw ExitError(ExitCode::kBadRecipe,
                    "adapter.rank: " + std::to_string(settings.rank) + "; allowed: 1 or more");
  }

  for (const auto& [name, tensor] : BaseParameters()) tensor.set_requires_grad(false);
  const auto adapt = [&](Linear& linear, const std::string& path) {
    LoraFactors& lora = linear.lora;
    const std::int64_t in = linear.weight_OI.size(1);
    const auto options = at::TensorOptions().dtype(ComputedIn(dtype_)).device(device_);
    lora.a_KI = at::empty({settings.rank, in}, options);
    lora.b_OK = at::zeros({linear.weight_OI.size(0), settings.rank}, options);
    lora.scale = settings.alpha / static_cast<double>(settings.rank);
    lora.dropout = settings.dropout;
    // Kaiming-uniform with a = sqrt 5: bound sqrt(6 / (1 + a^2) / in).
    const double bound = 1.0 / std::sqrt(static_cast<double>(in));
    FillUniform(lora.a_KI, bound, DrawsFor(seed, path + ".lora_A.weight"));
    lora.a_KI.set_requires_grad(true);
    lora.b_OK.set_requires_grad(true);
  };
  const std::set<std::string> targets(settings.targets.begin(), settings.targets.end());
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    for (const LinearShape& shape : shapes) {
      const std::string path = LayerPrefix(l) + shape.path;
      if (!targets.contains(shape.Name()) && !targets.contains(path)) continue;
      adapt(LinearAt(layers_[l], shape.path), path);
    }
  }
  if (targets.contains(kHead)) adapt(head_.linear, kHead);
  adapter_ = settings;
}

Decoder Decoder::WithoutAdapter() const {
  Decoder base = *this;
  base.adapter_.reset();
  for (Layer& layer : base.layers_) {
    for (const Slot& slot : kSlots) (layer.*slot.linear).lora = {};
  }
  base.head_.linear.lora = {};
  base.latents_.reset();
  return base;
}

std::vector<dist::NamedTensor> Decoder::BaseParameters() const {
  std::vector<dist::NamedTensor> named = {{"model.embed_tokens.weight", embed_tokens_}};
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    const std::string prefix = LayerPrefix(l);
    for (const LinearShape& shape : config_.LayerLinears()) {
      const Linear& linear = LinearAt(layers_[l], shape.path);
      named.push_back({prefix + shape.path + ".weight", linear.weight_OI});
      if (shape.bias) named.push_back({prefix + shape.path + ".bias", linear.bias_O});
    }
    for (const NormSlot& slot : NormSlots(config_)) {
      const at::Tensor& weight = layers_[l].*slot.weight;
      if (weight.defined()) named.push_back({prefix + slot.path + ".weight", weight});
    }
  }
  named.push_back({"model.norm.weight", norm_});
  if (!config_.tie_word_embeddings) named.push_back({"lm_head.weight", head_.linear.weight_OI});
  return named;
}

std::vector<dist::NamedTensor> Decoder::AdapterParameters() const {
  std::vector<dist::NamedTensor> named;
  const auto add = [&named](const Linear& linear, const std::string& path) {
    if (!linear.HasLora()) return;
    named.push_back({path + ".lora_A.weight", linear.lora.a_KI});
    named.push_back({path + ".lora_B.weight", linear.lora.b_OK});
  };
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    for (const LinearShape& shape : config_.LayerLinears()) {
      add(LinearAt(layers_[l], shape.path), LayerPrefix(l) + shape.path);
    }
  }
  add(head_.linear, kHead);
  return named;
}

std::vector<dist::NamedTensor> Decoder::TrainableParameters() const {
  // Latents come first: backward finishes them last (through the recognition pass), and the
  // gradient is sent from the end of this list on.
  std::vector<dist::NamedTensor> trained;
  if (latents_) trained = latents_->Parameters();
  const auto model = adapter_ ? AdapterParameters() : BaseParameters();
  trained.insert(trained.end(), model.begin(), model.end());
  return trained;
}

void Decoder::TrainBase() {
  if (adapter_) throw std::logic_error("TrainBase: the model has an adapter, its base is frozen");
  for (const auto& [name, tensor] : BaseParameters()) {
    if (tensor.is_meta()) throw std::logic_error("TrainBase: " + name + " is stored in NF4");
    tensor.set_requires_grad(true);
  }
  for (Layer& layer : layers_) {  // their values will leave the matrices for the flat buffer
    for (const JoinedSlot& slot : kJoinedSlots) layer.*slot.joined = {};
  }
}

}  // namespace plural::trainer
