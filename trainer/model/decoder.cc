#include "trainer/model/decoder.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <set>
#include <stdexcept>

#include "trainer/error.h"
#include "trainer/model/pointwise.h"
#include "trainer/model/random_weights.h"

namespace plural::trainer {
namespace {

struct Slot {
  const char* name;
  const char* path;  // inside "model.layers.<l>."
  Linear Decoder::Layer::*linear;
};

constexpr std::array<Slot, 7> kSlots = {{
    {"q_proj", "self_attn.q_proj", &Decoder::Layer::q_proj},
    {"k_proj", "self_attn.k_proj", &Decoder::Layer::k_proj},
    {"v_proj", "self_attn.v_proj", &Decoder::Layer::v_proj},
    {"o_proj", "self_attn.o_proj", &Decoder::Layer::o_proj},
    {"gate_proj", "mlp.gate_proj", &Decoder::Layer::gate_proj},
    {"up_proj", "mlp.up_proj", &Decoder::Layer::up_proj},
    {"down_proj", "mlp.down_proj", &Decoder::Layer::down_proj},
}};
constexpr const char* kHead = "lm_head";

std::string LayerPrefix(std::size_t layer) { return "model.layers." + std::to_string(layer) + "."; }

// Sites of a layer that may drop out, for their keys.
enum Site : std::uint64_t { kAttentionInput, kAttentionOutput, kFeedForwardInput, kFeedForwardOutput };

}  // namespace

Decoder::Decoder(const ModelConfig& config, at::ScalarType dtype, at::Device device)
    : config_(config), dtype_(dtype), device_(device) {
  const auto options = at::TensorOptions().dtype(dtype).device(device);
  const std::int64_t hidden = config.hidden_size;
  const std::int64_t queries = config.num_attention_heads * config.head_dim;
  const std::int64_t keys = config.num_key_value_heads * config.head_dim;
  const std::int64_t inner = config.intermediate_size;
  const auto linear = [&options](std::int64_t out, std::int64_t in) {
    return Linear{at::empty({out, in}, options), {}};
  };
  embed_tokens_ = at::empty({config.vocab_size, hidden}, options);
  norm_ = at::empty({hidden}, options);
  for (std::int64_t l = 0; l < config.num_hidden_layers; ++l) {
    layers_.push_back({.input_layernorm = at::empty({hidden}, options),
                       .post_attention_layernorm = at::empty({hidden}, options),
                       .q_proj = linear(queries, hidden),
                       .k_proj = linear(keys, hidden),
                       .v_proj = linear(keys, hidden),
                       .o_proj = linear(hidden, queries),
                       .gate_proj = linear(inner, hidden),
                       .up_proj = linear(inner, hidden),
                       .down_proj = linear(hidden, inner)});
  }
  head_.weight_OI =
      config.tie_word_embeddings ? embed_tokens_ : at::empty({config.vocab_size, hidden}, options);
}

void Decoder::InitializeRandom(std::uint64_t seed) {
  for (const auto& [name, tensor] : BaseParameters()) {
    if (tensor.dim() == 1) {
      const c10::AutoGradMode no_grad(false);
      tensor.fill_(1.0);
    } else {
      FillNormal(tensor, config_.initializer_range, DrawsFor(seed, name));
    }
  }
}

void Decoder::AddAdapter(const AdapterSettings& settings, std::uint64_t seed) {
  std::string allowed;
  for (const Slot& slot : kSlots) allowed += std::string(slot.name) + ", ";
  allowed += kHead;
  std::set<std::string> known = {kHead};  // a target is a kind of layer, or the path of a single one
  for (const Slot& slot : kSlots) {
    known.insert(slot.name);
    for (std::size_t l = 0; l < layers_.size(); ++l) known.insert(LayerPrefix(l) + slot.path);
  }
  for (const std::string& target : settings.targets) {
    if (!known.contains(target)) {
      throw ExitError(ExitCode::kBadRecipe, "adapter.targets: '" + target +
                                                "' is not a linear layer of this model; allowed: " + allowed);
    }
  }
  if (settings.targets.empty()) {
    throw ExitError(ExitCode::kBadRecipe, "adapter.targets: empty; name at least one of " + allowed);
  }
  if (settings.rank < 1) {
    throw ExitError(ExitCode::kBadRecipe,
                    "adapter.rank: " + std::to_string(settings.rank) + "; allowed: 1 or more");
  }

  for (const auto& [name, tensor] : BaseParameters()) tensor.set_requires_grad(false);
  const auto adapt = [&](Linear& linear, const std::string& path) {
    LoraFactors& lora = linear.lora;
    const std::int64_t in = linear.weight_OI.size(1);
    lora.a_KI = at::empty({settings.rank, in}, linear.weight_OI.options());
    lora.b_OK = at::zeros({linear.weight_OI.size(0), settings.rank}, linear.weight_OI.options());
    lora.scale = settings.alpha / static_cast<double>(settings.rank);
    lora.dropout = settings.dropout;
    // Kaiming-uniform with a = sqrt 5: bound sqrt(6 / (1 + a^2) / in).
    const double bound = 1.0 / std::sqrt(static_cast<double>(in));
    data::CounterRandom random = DrawsFor(seed, path + ".lora_A.weight");
    Fill(lora.a_KI, [&random, bound] { return bound * (2.0 * random.Uniform() - 1.0); });
    lora.a_KI.set_requires_grad(true);
    lora.b_OK.set_requires_grad(true);
  };
  const std::set<std::string> targets(settings.targets.begin(), settings.targets.end());
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    for (const Slot& slot : kSlots) {
      const std::string path = LayerPrefix(l) + slot.path;
      if (targets.contains(slot.name) || targets.contains(path)) adapt(layers_[l].*slot.linear, path);
    }
  }
  if (targets.contains(kHead)) adapt(head_, kHead);
  adapter_ = settings;
  has_adapter_ = true;
}

Decoder Decoder::WithoutAdapter() const {
  Decoder base = *this;
  base.has_adapter_ = false;
  base.adapter_ = {};
  for (Layer& layer : base.layers_) {
    for (const Slot& slot : kSlots) (layer.*slot.linear).lora = {};
  }
  base.head_.lora = {};
  base.latents_.reset();
  return base;
}

void Decoder::AddLatents(std::int64_t latents, std::uint64_t seed) {
  latents_ = Latents::Allocate(latents, config_.hidden_size, embed_tokens_.options().requires_grad(false));
  latents_->Initialize(seed, embed_tokens_, norm_, config_.initializer_range);
  for (const auto& [name, tensor] : latents_->Parameters()) tensor.set_requires_grad(true);
}

at::Tensor Decoder::Embed(const at::Tensor& token_N) const { return at::embedding(embed_tokens_, token_N); }

at::Tensor Decoder::Hidden(const at::Tensor& embedding_NE, const at::Tensor& position_N, Attention& attention,
                           const at::Tensor& rows_S, const Dropout& dropout) const {
  const double eps = config_.rms_norm_eps;
  const RotaryTable rotary = MakeRotaryTable(position_N, config_.head_dim, config_.rope_theta, dtype_);
  const auto heads = [this](const at::Tensor& x) { return x.view({x.size(0), -1, config_.head_dim}); };
  // The norm that follows a layer is the next layer's input norm, or the final one.
  const auto norm_after = [this](std::size_t layer) {
    return layer + 1 < layers_.size() ? layers_[layer + 1].input_layernorm : norm_;
  };

  at::Tensor residual_NE = embedding_NE;
  at::Tensor x_NE = RmsNorm(embedding_NE, layers_.empty() ? norm_ : layers_[0].input_layernorm, eps);
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    const Layer& layer = layers_[l];
    const bool last = l + 1 == layers_.size();
    const Dropout all_rows = dropout.At(l);
    const Dropout rows = rows_S.defined() && last ? all_rows.Rows(rows_S) : all_rows;
    const auto qkv =
        ForwardTogether({&layer.q_proj, &layer.k_proj, &layer.v_proj}, x_NE, all_rows.At(kAttentionInput));
    at::Tensor mixed = attention(static_cast<std::int64_t>(l), heads(Rotate(qkv[0], rotary)),
                                 heads(Rotate(qkv[1], rotary)), heads(qkv[2]));
    if (rows_S.defined() && last) {
      mixed = mixed.index_select(0, rows_S);
      residual_NE = residual_NE.index_select(0, rows_S);
    }
    const SumAndNorm attended =
        AddRmsNorm(residual_NE, layer.o_proj.Forward(mixed, rows.At(kAttentionOutput)),
                   layer.post_attention_layernorm, eps);
    const auto gate_up =
        ForwardTogether({&layer.gate_proj, &layer.up_proj}, attended.norm_NE, rows.At(kFeedForwardInput));
    const at::Tensor fed =
        layer.down_proj.Forward(SwiGlu(gate_up[0], gate_up[1]), rows.At(kFeedForwardOutput));
    const SumAndNorm next = AddRmsNorm(attended.sum_NE, fed, norm_after(l), eps);
    residual_NE = next.sum_NE;
    x_NE = next.norm_NE;
  }
  return x_NE;
}

std::vector<dist::NamedTensor> Decoder::BaseParameters() const {
  std::vector<dist::NamedTensor> named = {{"model.embed_tokens.weight", embed_tokens_}};
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    const std::string prefix = LayerPrefix(l);
    for (const Slot& slot : kSlots) {
      named.push_back({prefix + slot.path + ".weight", (layers_[l].*slot.linear).weight_OI});
    }
    named.push_back({prefix + "input_layernorm.weight", layers_[l].input_layernorm});
    named.push_back({prefix + "post_attention_layernorm.weight", layers_[l].post_attention_layernorm});
  }
  named.push_back({"model.norm.weight", norm_});
  if (!config_.tie_word_embeddings) named.push_back({"lm_head.weight", head_.weight_OI});
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
    for (const Slot& slot : kSlots) add(layers_[l].*slot.linear, LayerPrefix(l) + slot.path);
  }
  add(head_, kHead);
  return named;
}

std::vector<dist::NamedTensor> Decoder::TrainableParameters() const {
  // Latents first: backward finishes them last (through the recognition pass), and the gradient is sent from
  // the end of this list on.
  std::vector<dist::NamedTensor> trained;
  if (latents_) trained = latents_->Parameters();
  const auto model = has_adapter_ ? AdapterParameters() : BaseParameters();
  trained.insert(trained.end(), model.begin(), model.end());
  return trained;
}

void Decoder::TrainBase() {
  if (has_adapter_) throw std::logic_error("TrainBase: the model has an adapter, its base is frozen");
  for (const auto& [name, tensor] : BaseParameters()) tensor.set_requires_grad(true);
}

}  // namespace plural::trainer
