// The model written as plainly as possible, in ATen's own differentiable operators: what the hand-written
// forward and backward are compared with.
#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/sqrt.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "data/random.h"
#include "data/rows.h"
#include "tests/unit/support/every_part.h"
#include "trainer/model/decoder.h"

namespace plural::trainer::testing {

using Tensors = std::map<std::string, at::Tensor>;

// Uniform in [-1, 1).
inline at::Tensor RandomTensor(std::vector<std::int64_t> shape, std::uint64_t key,
                               at::ScalarType dtype = at::kDouble) {
  data::CounterRandom random{data::Mix64(key)};
  at::Tensor tensor = at::empty(shape, at::kDouble);
  auto* values = tensor.mutable_data_ptr<double>();
  for (std::int64_t e = 0; e < tensor.numel(); ++e) values[e] = 2.0 * random.Uniform() - 1.0;
  return tensor.to(dtype);
}

inline at::Tensor Longs(const std::vector<std::int32_t>& values) {
  return at::tensor(at::ArrayRef<std::int32_t>(values), at::kInt).to(at::kLong);
}

// A random forest in depth-first order, as one pass; about one row in `branching` ends its branch.
inline data::RowPass RandomTreePass(std::int64_t rows, std::uint64_t key, int vocab = 29, int branching = 4) {
  data::CounterRandom random{data::Mix64(key)};
  data::RowPass pass;
  pass.length = pass.rows = rows;
  pass.end.assign(static_cast<std::size_t>(rows), 0);
  std::vector<std::int32_t> path;
  for (std::int32_t row = 0; row < rows; ++row) {
    if (random.Below(static_cast<std::uint64_t>(branching)) == 0) path.resize(random.Below(path.size() + 1));
    pass.position.push_back(static_cast<std::int32_t>(path.size()));
    pass.token.push_back(static_cast<data::Token>(random.Below(static_cast<std::uint64_t>(vocab))));
    path.push_back(row);
    for (const std::int32_t ancestor : path) pass.end[ancestor] = row + 1;
  }
  // Rows that left the path keep the end they had; an ancestor's end covers all its descendants.
  return pass;
}

// A causal pass of `batch` padded rows.
inline data::RowPass PlainPass(std::int64_t batch, std::int64_t length, std::uint64_t key, int vocab = 29) {
  data::CounterRandom random{data::Mix64(key)};
  data::RowPass pass;
  pass.batch = batch;
  pass.length = length;
  pass.rows = batch * length;
  for (std::int64_t row = 0; row < batch * length; ++row) {
    pass.token.push_back(static_cast<data::Token>(random.Below(static_cast<std::uint64_t>(vocab))));
    pass.position.push_back(static_cast<std::int32_t>(row % length));
  }
  return pass;
}

// [N, N]: may the row see the column; rows of different batch items never do.
inline at::Tensor Visible(const data::RowPass& pass, std::int64_t window = 0) {
  const std::int64_t n = pass.batch * pass.length;
  at::Tensor visible = at::zeros({n, n}, at::kBool);
  auto* values = visible.mutable_data_ptr<bool>();
  for (std::int64_t q = 0; q < n; ++q) {
    for (std::int64_t k = 0; k <= q; ++k) {
      bool sees = q / pass.length == k / pass.length;
      if (!pass.end.empty()) sees = sees && q < pass.end[k];
      if (window > 0) sees = sees && pass.position[q] - pass.position[k] < window;
      values[q * n + k] = sees;
    }
  }
  return visible;
}

inline at::Tensor NaiveCap(const at::Tensor& x, double cap) { return cap > 0 ? cap * (x / cap).tanh() : x; }

inline at::Tensor NaiveAttention(const at::Tensor& q_NHD, const at::Tensor& k_NGD, const at::Tensor& v_NGD,
                                 const at::Tensor& visible, double scale = 0.0, double softcap = 0.0) {
  const std::int64_t shared = q_NHD.size(1) / k_NGD.size(1);
  const at::Tensor q = q_NHD.transpose(0, 1);
  const at::Tensor k = k_NGD.transpose(0, 1).repeat_interleave(shared, 0);
  const at::Tensor v = v_NGD.transpose(0, 1).repeat_interleave(shared, 0);
  if (scale == 0.0) scale = 1.0 / std::sqrt(static_cast<double>(q.size(2)));
  at::Tensor scores = NaiveCap(at::matmul(q, k.transpose(1, 2)) * scale, softcap);
  scores = scores.masked_fill(visible.logical_not(), -std::numeric_limits<double>::infinity());
  return at::matmul(at::softmax(scores, -1), v).transpose(0, 1).reshape({q_NHD.size(0), -1});
}

inline at::Tensor NaiveRmsNorm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  return x / at::sqrt((x * x).mean(-1, true) + eps) * weight;
}

// Multiplies the complex numbers x_i + j x_(i + D/2) of every head by exp(j position theta^(-2i/D) / factor).
inline at::Tensor NaiveRotate(const at::Tensor& x_NHD, const at::Tensor& position_N, const Rope& rope) {
  const std::int64_t half = x_NHD.size(2) / 2;
  const at::Tensor power = at::arange(half, at::kDouble) * (-2.0 / static_cast<double>(2 * half));
  const at::Tensor angle =
      position_N.to(at::kDouble).view({-1, 1, 1}) * at::pow(rope.theta, power) / rope.factor;
  const at::Tensor re = x_NHD.narrow(2, 0, half);
  const at::Tensor im = x_NHD.narrow(2, half, half);
  return at::cat({re * angle.cos() - im * angle.sin(), re * angle.sin() + im * angle.cos()}, 2);
}

// The model's tensors by name; a tied head appears under its own name too.
inline Tensors NamedTensors(const Decoder& model) {
  Tensors tensors;
  for (const auto& [name, tensor] : model.BaseParameters()) tensors[name] = tensor;
  for (const auto& [name, tensor] : model.AdapterParameters()) tensors[name] = tensor;
  if (model.Config().tie_word_embeddings) tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"];
  return tensors;
}

inline at::Tensor NaiveLinear(const Tensors& tensors, const std::string& path, const at::Tensor& x,
                              double scale) {
  at::Tensor y = at::matmul(x, tensors.at(path + ".weight").t());
  if (tensors.contains(path + ".bias")) y = y + tensors.at(path + ".bias");
  if (tensors.contains(path + ".lora_A.weight")) {
    y = y + scale * at::matmul(at::matmul(x, tensors.at(path + ".lora_A.weight").t()),
                               tensors.at(path + ".lora_B.weight").t());
  }
  return y;
}

inline at::Tensor NaiveHidden(const Decoder& model, const data::RowPass& pass) {
  const ModelConfig& config = model.Config();
  const Tensors tensors = NamedTensors(model);
  const double scale =
      model.Adapter() ? model.Adapter()->alpha / static_cast<double>(model.Adapter()->rank) : 0;
  const at::Tensor position = Longs(pass.position);
  const auto norm = [&](const std::string& path, const at::Tensor& in) {
    const at::Tensor factor = tensors.at(path + ".weight") + config.norm_weight_offset;
    return NaiveRmsNorm(in, factor, config.rms_norm_eps);
  };
  at::Tensor x = tensors.at("model.embed_tokens.weight").index_select(0, Longs(pass.token));
  if (config.scaled_embedding) x = x * std::sqrt(static_cast<double>(config.hidden_size));
  for (std::int64_t l = 0; l < config.num_hidden_layers; ++l) {
    const std::string prefix = "model.layers." + std::to_string(l) + ".";
    const auto linear = [&](const std::string& path, const at::Tensor& in) {
      return NaiveLinear(tensors, prefix + path, in, scale);
    };
    const auto heads = [&](const at::Tensor& in, const std::string& of) {
      const at::Tensor split = in.reshape({in.size(0), -1, config.head_dim});
      return config.qk_norm && !of.empty() ? norm(prefix + "self_attn." + of + "_norm", split) : split;
    };
    at::Tensor n = norm(prefix + "input_layernorm", x);
    at::Tensor q, k, v;
    const std::int64_t wide = config.num_attention_heads * config.head_dim;
    const std::int64_t narrow = config.num_key_value_heads * config.head_dim;
    if (config.fused_projections) {
      const at::Tensor qkv = linear("self_attn.qkv_proj", n);
      q = qkv.narrow(1, 0, wide);
      k = qkv.narrow(1, wide, narrow);
      v = qkv.narrow(1, wide + narrow, narrow);
    } else {
      q = linear("self_attn.q_proj", n);
      k = linear("self_attn.k_proj", n);
      v = linear("self_attn.v_proj", n);
    }
    const Rope& rope = config.RopeOf(l);
    const at::Tensor mixed = NaiveAttention(
        NaiveRotate(heads(q, "q"), position, rope), NaiveRotate(heads(k, "k"), position, rope), heads(v, ""),
        Visible(pass, config.WindowOf(l)), config.AttentionScale(), config.attn_logit_softcapping);
    at::Tensor branch = linear("self_attn.o_proj", mixed);
    if (config.output_norms) branch = norm(prefix + "post_attention_layernorm", branch);
    x = x + branch;
    n = norm(prefix + (config.output_norms ? "pre_feedforward_layernorm" : "post_attention_layernorm"), x);
    at::Tensor gate, up;
    if (config.fused_projections) {
      const at::Tensor both = linear("mlp.gate_up_proj", n);
      gate = both.narrow(1, 0, config.intermediate_size);
      up = both.narrow(1, config.intermediate_size, config.intermediate_size);
    } else {
      gate = linear("mlp.gate_proj", n);
      up = linear("mlp.up_proj", n);
    }
    constexpr double kRootOfTwoOverPi = 0.79788456080286535588;
    const at::Tensor active =
        config.activation == Activation::kSilu
            ? gate * at::sigmoid(gate)
            : 0.5 * gate * (1 + (kRootOfTwoOverPi * (gate + 0.044715 * gate * gate * gate)).tanh());
    branch = linear("mlp.down_proj", active * up);
    if (config.output_norms) branch = norm(prefix + "post_feedforward_layernorm", branch);
    x = x + branch;
  }
  return norm("model.norm", x);
}

// Largest difference relative to the largest value: what rounding of sums leaves.
inline double RelativeError(const at::Tensor& found, const at::Tensor& wanted) {
  const double largest = wanted.abs().max().item<double>();
  return (found - wanted).abs().max().item<double>() / (largest > 0 ? largest : 1.0);
}

// A shape in which no two sizes that could be confused are equal.
inline ModelConfig SmallConfig(bool tied = false) {
  ModelConfig config;
  config.model_type = "mistral";
  config.architecture = "MistralForCausalLM";
  config.vocab_size = 29;
  config.hidden_size = 20;
  config.intermediate_size = 28;
  config.num_hidden_layers = 3;
  config.num_attention_heads = 4;
  config.num_key_value_heads = 2;
  config.head_dim = 6;
  config.max_position_embeddings = 512;
  config.rms_norm_eps = 1e-5;
  config.rope.theta = 100.0;
  config.initializer_range = 0.3;
  config.tie_word_embeddings = tied;
  return config;
}

inline ModelConfig RichConfig(bool fused) {
  ModelConfig config = SmallConfig(true);
  config.sliding_window = 4;
  config.fused_projections = fused;
  AddEveryPart(config);
  return config;
}

// Norms and biases as they are after training, not 1 and 0.
inline void RandomiseVectors(const Decoder& model) {
  const c10::AutoGradMode no_grad(false);
  for (const auto& [name, tensor] : model.BaseParameters()) {
    if (tensor.dim() == 1) tensor.add_(RandomTensor(tensor.sizes().vec(), data::HashName(name)) * 0.4);
  }
}

// LoRA factors that are not zero, so that every gradient flows.
inline void FillAdapter(const Decoder& model, std::uint64_t key) {
  for (const auto& [name, tensor] : model.AdapterParameters()) {
    tensor.detach().copy_(RandomTensor(tensor.sizes().vec(), data::HashName(name) ^ key) * 0.3);
  }
}

}  // namespace plural::trainer::testing
