// A decoder whose logits are given row by row, so that tests can state losses in closed form.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/full.h>
#include <c10/core/GradMode.h>

#include <cmath>
#include <functional>
#include <utility>
#include <vector>

#include "data/rows.h"
#include "tests/unit/support/random_groups.h"
#include "tests/unit/support/run_and_read.h"
#include "trainer/method/objective.h"

namespace plural::trainer::testing {

using Logits = std::vector<double>;

// A decoder that gives each row of a pass logits of its own: the fed tokens are replaced by row numbers,
// the layer adds nothing, the norm of the row's one-hot embedding is one-hot again, and the head's
// column is the row's logits. The gradient of that column is the gradient of the logits.
class PrescribedDecoder {
 public:
  static constexpr std::int64_t kSize = 64;  // vocabulary and hidden size; its root is exact

  // Tokens beyond `logits` get no mass.
  PrescribedDecoder(data::RowPass pass, const std::function<Logits(const std::vector<data::Token>&)>& logits)
      : pass_(std::move(pass)), model_(Config(), at::kDouble, at::kCPU) {
    const c10::AutoGradMode no_grad(false);
    constexpr double kNoMass = -1e4;  // exp underflows to 0
    at::Tensor head_VE = at::full({kSize, kSize}, kNoMass, at::kDouble);
    std::vector<data::Token> rows;
    for (std::int64_t row = 0; row < static_cast<std::int64_t>(pass_.token.size()); ++row) {
      const Logits of_row = logits(data::testing::Visible(pass_, row));
      for (std::size_t v = 0; v < of_row.size(); ++v) {
        head_VE[static_cast<std::int64_t>(v)][row] = of_row[v];
      }
      rows.push_back(static_cast<data::Token>(row));
    }
    pass_.token = rows;
    for (const auto& [name, tensor] : model_.BaseParameters()) {
      tensor.zero_();
      if (name == "model.embed_tokens.weight") tensor.copy_(at::eye(kSize, at::kDouble));
      if (name == "model.norm.weight") tensor.fill_(1.0 / std::sqrt(static_cast<double>(kSize)));
      if (name == "lm_head.weight") {
        tensor.copy_(head_VE);
        head_ = tensor;
      }
    }
    model_.TrainBase();
  }

  const data::RowPass& Pass() const { return pass_; }

  ReadPass Run(const ObjectiveSettings& settings = {}) {
    head_.mutable_grad() = at::Tensor();
    ReadPass result = RunAndRead(model_, pass_, settings);
    result.loss.backward();
    return result;
  }

  // dL/dlogits of a row after Run, the first `size` tokens.
  Logits Gradient(std::int64_t row, std::int64_t size) const {
    const at::Tensor column = head_.grad().select(1, row).narrow(0, 0, size).contiguous();
    return {column.const_data_ptr<double>(), column.const_data_ptr<double>() + size};
  }

 private:
  static ModelConfig Config() {
    ModelConfig config;
    config.model_type = "llama";
    config.architecture = "LlamaForCausalLM";
    config.vocab_size = config.hidden_size = kSize;
    config.intermediate_size = 4;
    config.num_hidden_layers = config.num_attention_heads = config.num_key_value_heads = 1;
    config.head_dim = 4;
    config.max_position_embeddings = 16;
    config.rms_norm_eps = 0.0;
    return config;
  }

  data::RowPass pass_;
  Decoder model_;
  at::Tensor head_;
};

}  // namespace plural::trainer::testing
