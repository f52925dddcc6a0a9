// Tiny decoders for tests, with every weight random so that nothing is symmetric by accident.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/core/GradMode.h>

#include <cstdint>
#include <string>
#include <vector>

#include "data/random.h"
#include "tests/unit/support/every_part.h"
#include "trainer/kernels/dtypes.h"
#include "trainer/model/decoder.h"

namespace plural::trainer::testing {

struct TinyOptions {
  std::int64_t vocab_size = 24;
  std::int64_t sliding_window = 0;
  bool tied = false;
  double dropout = 0.0;  // of the adapter
  bool lora = true;      // on every linear layer, with B that is not zero; else all weights are trained
  bool rich = false;     // what only some families compute, every_part.h
  bool fused = false;
};

inline void FillUniform(const at::Tensor& tensor, double low, double high, const std::string& key) {
  const c10::AutoGradMode no_grad(false);
  data::CounterRandom random{data::HashName(key)};
  const at::Tensor host = at::empty(tensor.sizes(), at::kDouble);
  auto* values = host.mutable_data_ptr<double>();
  for (std::int64_t i = 0; i < host.numel(); ++i) values[i] = low + (high - low) * random.Uniform();
  tensor.copy_(host);
}

inline Decoder TinyDecoder(const TinyOptions& options, at::ScalarType dtype = at::kDouble) {
  ModelConfig config;
  config.model_type = "mistral";
  config.architecture = "MistralForCausalLM";
  config.vocab_size = options.vocab_size;
  config.hidden_size = 16;
  config.intermediate_size = 24;
  config.num_hidden_layers = 2;
  config.num_attention_heads = 4;
  config.num_key_value_heads = 2;
  config.head_dim = 4;
  config.max_position_embeddings = 64;
  config.sliding_window = options.sliding_window;
  config.tie_word_embeddings = options.tied;
  config.fused_projections = options.fused;
  if (options.rich) AddEveryPart(config);
  Decoder model(config, dtype, at::kCPU, options.lora ? dtype : ComputedIn(dtype));
  for (const auto& [name, tensor] : model.BaseParameters()) {
    const bool norm = tensor.dim() == 1;
    FillUniform(tensor, norm ? 0.5 : -0.5, norm ? 1.5 : 0.5, name);
  }
  if (!options.lora) {
    model.TrainBase();
    return model;
  }
  std::vector<std::string> targets = {"lm_head"};
  for (const LinearShape& linear : config.LayerLinears()) targets.push_back(linear.Name());
  model.AddAdapter({.rank = 3, .alpha = 6.0, .dropout = options.dropout, .targets = targets}, 1);
  for (const auto& [name, tensor] : model.AdapterParameters()) FillUniform(tensor, -0.4, 0.4, name);
  return model;
}

}  // namespace plural::trainer::testing
