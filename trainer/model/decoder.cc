#include "trainer/model/decoder.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/scalar_tensor.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>
#include <initializer_list>

#include "trainer/kernels/dtypes.h"
#include "trainer/ops/joined_rows.h"
#include "trainer/ops/pointwise.h"
#include "trainer/ops/recompute.h"

namespace plural::trainer {
namespace {

// Whether the layers are one product: none of them is stored in NF4.
bool AreJoined(const JoinedLinear& joined, std::initializer_list<const Linear*> layers) {
  return joined.weight_OI.defined() && std::none_of(layers.begin(), layers.end(), [](const Linear* layer) {
           return layer->nf4 != nullptr;
         });
}

// Sites of a layer where dropout may apply, for their keys.
enum Site : std::uint64_t { kAttentionInput, kAttentionOutput, kFeedForwardInput, kFeedForwardOutput };

}  // namespace

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
                                                   const RotaryTable& table, const Dropout& dropout) const {
  const std::initializer_list<const Linear*> layers = {&layer.q_proj, &layer.k_proj, &layer.v_proj};
  at::Tensor joined;
  if (config_.fused_projections) {
    joined = layer.qkv_proj.Forward(x_NE, dropout);
  } else if (AreJoined(layer.qkv, layers)) {
    joined = ForwardJoined(layers, layer.qkv, x_NE, dropout);
  }
  if (joined.defined() && !config_.qk_norm) {
    return RotateJoined(joined, table, config_.num_attention_heads, config_.num_key_value_heads);
  }
  std::vector<at::Tensor> qkv;
  if (joined.defined()) {
    const std::int64_t queries = config_.num_attention_heads * config_.head_dim;
    const std::int64_t keys = config_.num_key_value_heads * config_.head_dim;
    qkv = joined.split_with_sizes({queries, keys, keys}, 1);
    qkv[2] = qkv[2].contiguous();  // attention saves it, which would keep the others' memory
  } else {
    qkv = ForwardTogether(layers, x_NE, dropout);
  }
  if (config_.qk_norm) {
    const auto of_heads = [this](const at::Tensor& x, const at::Tensor& weight_D) {
      return RmsNorm(x.reshape({-1, config_.head_dim}), weight_D, config_.Norms()).view(x.sizes());
    };
    qkv[0] = of_heads(qkv[0], layer.q_norm);
    qkv[1] = of_heads(qkv[1], layer.k_norm);
  }
  return {Rotate(qkv[0], table), Rotate(qkv[1], table), qkv[2]};
}

at::Tensor Decoder::FeedForward(const Layer& layer, const at::Tensor& x_NE, const Dropout& dropout,
                                const Dropout& output_dropout) const {
  const std::initializer_list<const Linear*> layers = {&layer.gate_proj, &layer.up_proj};
  at::Tensor gated_NF;
  if (config_.fused_projections) {
    gated_NF = GateJoined(config_.activation, layer.gate_up_proj.Forward(x_NE, dropout));
  } else if (AreJoined(layer.gate_up, layers)) {
    gated_NF = GateJoined(config_.activation, ForwardJoined(layers, layer.gate_up, x_NE, dropout));
  } else {
    const std::vector<at::Tensor> gate_up = ForwardTogether(layers, x_NE, dropout);
    gated_NF = GatedActivation(config_.activation, gate_up[0], gate_up[1]);
  }
  return layer.down_proj.Forward(gated_NF, output_dropout);
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

  const auto qkv = QueriesKeysValues(layer, x_NE, table, all_rows.At(kAttentionInput));
  at::Tensor mixed =
      context.attention(static_cast<std::int64_t>(l), heads(qkv[0]), heads(qkv[1]), heads(qkv[2]));
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

}  // namespace plural::trainer
