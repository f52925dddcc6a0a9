#include "trainer/model/decoder.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/scalar_tensor.h>
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
#include "trainer/model/random_weights.h"
#include "trainer/ops/pointwise.h"
#include "trainer/ops/recompute.h"

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

// Sites of a layer where dropout may apply, for their keys.
enum Site : std::uint64_t { kAttentionInput, kAttentionOutput, kFeedForwardInput, kFeedForwardOutput };

}  // namespace

Decoder::Decoder(const ModelConfig& config, at::ScalarType dtype, at::Device device,
                 std::optional<at::ScalarType> weight_dtype, Linears linears)
    : config_(config), dtype_(dtype), device_(device) {
  const auto options = at::TensorOptions().dtype(weight_dtype.value_or(dtype)).device(device);
  const std::int64_t hidden = config.hidden_size;
  const auto linear_options = linears == Linears::kNow ? options : options.device(at::kMeta);
  embed_tokens_ = at::empty({config.vocab_size, hidden}, options);
  norm_ = at::empty({hidden}, options);
  for (std::int64_t l = 0; l < config.num_hidden_layers; ++l) {
    Layer& layer = layers_.emplace_back();
    for (const LinearShape& shape : config.LayerLinears()) {
      Linear& linear = LinearAt(layer, shape.path);
      linear.weight_OI = at::empty({shape.out_features, shape.in_features}, linear_options);
      if (shape.bias) linear.bias_O = at::empty({shape.out_features}, options);
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
  if (linear.weight_OI.is_meta()) {
    linear.weight_OI = at::empty_like(linear.weight_OI, at::TensorOptions().device(device_));
    linear.nf4 = nullptr;
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

void Decoder::AddLatents(std::int64_t latents, std::uint64_t seed) {
  latents_ = Latents::Allocate(latents, config_.hidden_size,
                               embed_tokens_.options().dtype(ComputedIn(dtype_)).requires_grad(false));
  const c10::AutoGradMode no_grad(false);
  latents_->Initialize(seed, embed_tokens_, EmbeddingScale(), norm_ + config_.norm_weight_offset,
                       config_.initializer_range);
  for (const auto& [name, tensor] : latents_->Parameters()) tensor.set_requires_grad(true);
}

// Rounded to the model's dtype, as transformers does: 55.5 for the root of 3072 in bf16.
double Decoder::EmbeddingScale() const {
  if (!config_.scaled_embedding) return 1.0;
  return at::scalar_tensor(std::sqrt(static_cast<double>(config_.hidden_size)), dtype_).item<double>();
}

at::Tensor Decoder::Embed(const at::Tensor& token_N) const {
  const at::Tensor embedding_NE = at::embedding(embed_tokens_, token_N).to(dtype_);
  return config_.scaled_embedding ? embedding_NE * EmbeddingScale() : embedding_NE;
}

std::vector<at::Tensor> Decoder::QueriesKeysValues(const Layer& layer, const at::Tensor& x_NE,
                                                   const Dropout& dropout) const {
  std::vector<at::Tensor> qkv;
  if (config_.fused_projections) {
    const std::int64_t queries = config_.num_attention_heads * config_.head_dim;
    const std::int64_t keys = config_.num_key_value_heads * config_.head_dim;
    qkv = layer.qkv_proj.Forward(x_NE, dropout).split_with_sizes({queries, keys, keys}, 1);
    qkv[2] = qkv[2].contiguous();  // attention saves it, which would keep the others' memory
  } else {
    qkv = ForwardTogether({&layer.q_proj, &layer.k_proj, &layer.v_proj}, x_NE, dropout);
  }
  if (config_.qk_norm) {
    const auto of_heads = [this](const at::Tensor& x, const at::Tensor& weight_D) {
      return RmsNorm(x.reshape({-1, config_.head_dim}), weight_D, config_.Norms()).view(x.sizes());
    };
    qkv[0] = of_heads(qkv[0], layer.q_norm);
    qkv[1] = of_heads(qkv[1], layer.k_norm);
  }
  return qkv;
}

at::Tensor Decoder::FeedForward(const Layer& layer, const at::Tensor& x_NE, const Dropout& dropout,
                                const Dropout& output_dropout) const {
  std::vector<at::Tensor> gate_up;
  if (config_.fused_projections) {
    gate_up = layer.gate_up_proj.Forward(x_NE, dropout).chunk(2, 1);
  } else {
    gate_up = ForwardTogether({&layer.gate_proj, &layer.up_proj}, x_NE, dropout);
  }
  return layer.down_proj.Forward(GatedActivation(config_.activation, gate_up[0], gate_up[1]), output_dropout);
}

Decoder::LayersContext Decoder::ContextOf(const at::Tensor& position_N, Attention& attention,
                                          const RowNumbers& rows, const Dropout& dropout) const {
  LayersContext context{
      attention, MakeRotaryTable(position_N, config_.head_dim, config_.rope, dtype_), {}, rows, dropout};
  if (config_.sliding_rope) {
    context.sliding_rotary = MakeRotaryTable(position_N, config_.head_dim, *config_.sliding_rope, dtype_);
  }
  return context;
}

SumAndNorm Decoder::BeforeLayers(const at::Tensor& embedding_NE) const {
  return {embedding_NE,
          RmsNorm(embedding_NE, layers_.empty() ? norm_ : layers_[0].attention_norm, config_.Norms())};
}

SumAndNorm Decoder::RunLayer(std::size_t l, const LayersContext& context, at::Tensor residual_NE,
                             const at::Tensor& x_NE) const {
  const Layer& layer = layers_[l];
  const NormTerms terms = config_.Norms();
  const bool last = l + 1 == layers_.size();
  const bool some_rows = context.rows && last;
  const bool slides = config_.sliding_rope && config_.HasWindow(static_cast<std::int64_t>(l));
  const RotaryTable& table = slides ? context.sliding_rotary : context.rotary;
  const auto heads = [this](const at::Tensor& x) { return x.unflatten(1, {-1, config_.head_dim}); };
  const Dropout all_rows = context.dropout.At(l);
  const Dropout row_dropout = some_rows ? all_rows.Rows(context.rows) : all_rows;

  const auto qkv = QueriesKeysValues(layer, x_NE, all_rows.At(kAttentionInput));
  at::Tensor mixed = context.attention(static_cast<std::int64_t>(l), heads(Rotate(qkv[0], table)),
                                       heads(Rotate(qkv[1], table)), heads(qkv[2]));
  if (some_rows) {
    mixed = mixed.index_select(0, context.rows.on_device);
    residual_NE = residual_NE.index_select(0, context.rows.on_device);
  }
  mixed = layer.o_proj.Forward(mixed, row_dropout.At(kAttentionOutput));
  if (config_.output_norms) mixed = RmsNorm(mixed, layer.attention_output_norm, terms);
  const SumAndNorm attended = AddRmsNorm(residual_NE, mixed, layer.feed_forward_norm, terms);
  at::Tensor fed = FeedForward(layer, attended.norm_NE, row_dropout.At(kFeedForwardInput),
                               row_dropout.At(kFeedForwardOutput));
  if (config_.output_norms) fed = RmsNorm(fed, layer.feed_forward_output_norm, terms);
  // The norm that follows a layer is the next layer's, or the final one.
  return AddRmsNorm(attended.sum_NE, fed, last ? norm_ : layers_[l + 1].attention_norm, terms);
}

at::Tensor Decoder::Hidden(const at::Tensor& embedding_NE, const at::Tensor& position_N, Attention& attention,
                           const RowNumbers& rows, const Dropout& dropout) const {
  const LayersContext context = ContextOf(position_N, attention, rows, dropout);
  SumAndNorm now = BeforeLayers(embedding_NE);
  for (std::size_t l = 0; l < layers_.size(); ++l) now = RunLayer(l, context, now.sum_NE, now.norm_NE);
  return now.norm_NE;
}

at::Tensor Decoder::HiddenRecomputed(const at::Tensor& embedding_NE, const at::Tensor& position_N,
                                     std::shared_ptr<Attention> attention, const RowNumbers& rows,
                                     const Dropout& dropout) const {
  const auto context =
      std::make_shared<const LayersContext>(ContextOf(position_N, *attention, rows, dropout));
  SumAndNorm now = BeforeLayers(embedding_NE);
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    // The region owns the attention, since backward runs after the caller may have released it.
    const auto layer = [this, l, context, attention](const std::vector<at::Tensor>& inputs) {
      const SumAndNorm next = RunLayer(l, *context, inputs[0], inputs[1]);
      return std::vector<at::Tensor>{next.sum_NE, next.norm_NE};
    };
    const std::vector<at::Tensor> next = Recomputed(layer, {now.sum_NE, now.norm_NE});
    now = {next[0], next[1]};
  }
  return now.norm_NE;
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
}

}  // namespace plural::trainer
