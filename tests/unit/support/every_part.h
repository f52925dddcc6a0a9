// Everything that some family of models computes and others do not, at once.
#pragma once

#include "trainer/model/config.h"

namespace plural::trainer::testing {

// A window that the config has becomes that of every second layer, from the first on.
inline void AddEveryPart(ModelConfig& config) {
  for (std::int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    config.sliding_layers.push_back(layer % 2 == 0);
  }
  config.sliding_rope = Rope{.theta = 10.0};
  config.rope.scaling = Rope::Scaling::kLinear;
  config.rope.factor = 3.0;
  config.query_pre_attn_scalar = 3.0;
  config.attn_logit_softcapping = 1.5;
  config.final_logit_softcapping = 3.0;
  config.qk_norm = config.qkv_bias = config.o_bias = config.mlp_bias = true;
  config.activation = Activation::kGeluTanh;
  config.norm_weight_offset = 1.0;
  config.output_norms = config.scaled_embedding = true;
}

}  // namespace plural::trainer::testing
