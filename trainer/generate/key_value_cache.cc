#include "trainer/generate/key_value_cache.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/_scaled_dot_product_attention_math.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "data/rows.h"

namespace plural::trainer {
namespace {

// Passes a tree's attention through and keeps every layer's keys and values.
class CapturingAttention : public Attention {
 public:
  CapturingAttention(std::unique_ptr<Attention> inner, Prefill& prefill)
      : inner_(std::move(inner)), prefill_(prefill) {}
  at::Tensor operator()(std::int64_t layer, const at::Tensor& q_NHD, const at::Tensor& k_NGD,
                        const at::Tensor& v_NGD) override {
    prefill_.k_NGD.push_back(k_NGD);
    prefill_.v_NGD.push_back(v_NGD);
    return (*inner_)(layer, q_NHD, k_NGD, v_NGD);
  }

 private:
  std::unique_ptr<Attention> inner_;
  Prefill& prefill_;
};

at::Tensor Indices(const std::vector<std::int64_t>& values, at::Device device) {
  return at::tensor(values, at::kLong).to(device);
}

}  // namespace

Prefill RunPrefill(const Decoder& model, const data::Group& group, const std::vector<int>& tails) {
  // The tree builder never feeds a sequence's last token, so every path gets one token to predict.
  data::LabelledGroup sequences;
  sequences.group = group.index;
  for (const int tail : tails) {
    data::LabelledSequence sequence;
    sequence.prefix = group.prompt_tokens;
    const auto& rest = group.tails.at(static_cast<std::size_t>(tail));
    sequence.prefix.insert(sequence.prefix.end(), rest.begin(), rest.end());
    sequence.response = {0};
    sequence.likelihood = sequence.unlikelihood = {0.0};
    sequences.sequences.push_back(std::move(sequence));
  }
  const data::RowPass pass = std::move(data::PackGroups({&sequences, 1}, data::PackSettings{}, 1.0).at(0));

  const c10::NoGradGuard no_grad;
  Prefill prefill;
  CapturingAttention attention(
      MakePassAttention(pass, model.Config().sliding_window, model.DType(), model.Device()), prefill);
  const auto token = at::tensor(pass.token, at::kInt).to(model.Device(), at::kLong);
  const auto position = at::tensor(pass.position, at::kInt).to(model.Device(), at::kLong);
  const at::Tensor hidden_NE = model.Hidden(model.Embed(token), position, attention);

  std::vector<std::int64_t> last_rows(tails.size());
  prefill.path.resize(tails.size());
  for (std::size_t s = 0; s < pass.sequences.size(); ++s) {
    const auto tail = static_cast<std::size_t>(pass.sequences[s].sequence);
    const std::int64_t last =
        pass.edges[static_cast<std::size_t>(pass.path[static_cast<std::size_t>(pass.path_offset[s])])].source;
    last_rows[tail] = last;
    for (std::int64_t row = 0; row <= last; ++row) {
      if (pass.end[static_cast<std::size_t>(row)] > last) prefill.path[tail].push_back(row);
    }
  }
  prefill.logits_LV = model.Logits(hidden_NE.index_select(0, Indices(last_rows, model.Device())));
  return prefill;
}

KeyValueCache::KeyValueCache(const Decoder& model, std::int64_t responses, std::int64_t tokens)
    : length_(static_cast<std::size_t>(responses), 0), sliding_window_(model.Config().sliding_window) {
  const ModelConfig& config = model.Config();
  const auto options = at::TensorOptions().dtype(model.DType()).device(model.Device());
  for (std::int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    // Zeros, not garbage: masked keys are multiplied by 0, and 0 * NaN is NaN.
    k_RGTD_.push_back(at::zeros({responses, config.num_key_value_heads, tokens, config.head_dim}, options));
    v_RGTD_.push_back(at::zeros_like(k_RGTD_.back()));
  }
}

void KeyValueCache::Start(std::int64_t row, const Prefill& prefill, std::size_t tail) {
  const auto& path = prefill.path.at(tail);
  const auto length = static_cast<std::int64_t>(path.size());
  const at::Tensor rows = Indices(path, k_RGTD_.front().device());
  for (std::size_t layer = 0; layer < k_RGTD_.size(); ++layer) {
    k_RGTD_[layer][row]
        .narrow(1, 0, length)
        .copy_(prefill.k_NGD[layer].index_select(0, rows).transpose(0, 1));
    v_RGTD_[layer][row]
        .narrow(1, 0, length)
        .copy_(prefill.v_NGD[layer].index_select(0, rows).transpose(0, 1));
  }
  length_[static_cast<std::size_t>(row)] = length;
}

// One new token a response: writes its key and value behind the cached ones and attends to all of them.
class KeyValueCache::CacheAttention : public Attention {
 public:
  CacheAttention(KeyValueCache& cache, const at::Tensor& length_R, std::int64_t longest)
      : cache_(cache), length_R_(length_R), tokens_(longest + 1) {
    const at::Tensor& k = cache.k_RGTD_.front();
    const at::Tensor t = at::arange(tokens_, length_R.options());
    at::Tensor hidden = t.unsqueeze(0) > length_R.unsqueeze(1);  // [R, T]
    if (cache.sliding_window_ > 0) {
      hidden = hidden.logical_or(t.unsqueeze(0) <= length_R.unsqueeze(1) - cache.sliding_window_);
    }
    mask_R11T_ =
        at::zeros({length_R.size(0), 1, 1, tokens_}, k.options())
            .masked_fill_(hidden.view({-1, 1, 1, tokens_}), -std::numeric_limits<double>::infinity());
    row_R_ = at::arange(length_R.size(0), length_R.options());
  }

  at::Tensor operator()(std::int64_t layer, const at::Tensor& q_NHD, const at::Tensor& k_NGD,
                        const at::Tensor& v_NGD) override {
    const std::int64_t responses = q_NHD.size(0), heads = q_NHD.size(1), dim = q_NHD.size(2);
    at::Tensor& k_RGTD = cache_.k_RGTD_[static_cast<std::size_t>(layer)];
    at::Tensor& v_RGTD = cache_.v_RGTD_[static_cast<std::size_t>(layer)];
    // [R, T] is made the leading pair so that one indexed write reaches each response's own position.
    k_RGTD.transpose(1, 2).index_put_({row_R_, length_R_}, k_NGD);
    v_RGTD.transpose(1, 2).index_put_({row_R_, length_R_}, v_NGD);
    const std::int64_t groups = k_NGD.size(1);
    const at::Tensor k = k_RGTD.narrow(0, 0, responses).narrow(2, 0, tokens_);
    const at::Tensor v = v_RGTD.narrow(0, 0, responses).narrow(2, 0, tokens_);
    // The query heads that share a key-value head stand as several queries of it: no copy of keys.
    const at::Tensor q = q_NHD.reshape({responses, groups, heads / groups, dim});
    at::Tensor out;
    if (q.is_cpu()) {
      out = std::get<0>(at::_scaled_dot_product_flash_attention_for_cpu(
          q, k, v, 0.0, false, mask_R11T_.expand({responses, 1, heads / groups, tokens_})));
    } else {
      out = std::get<0>(at::_scaled_dot_product_attention_math(q, k, v, mask_R11T_, 0.0, false));
    }
    return out.reshape({responses, heads * dim});
  }

 private:
  KeyValueCache& cache_;
  at::Tensor length_R_, mask_R11T_, row_R_;
  std::int64_t tokens_;
};

at::Tensor KeyValueCache::Step(const Decoder& model, const at::Tensor& token_R) {
  return StepEmbeddings(model, model.Embed(token_R));
}

at::Tensor KeyValueCache::StepEmbeddings(const Decoder& model, const at::Tensor& embedding_RE) {
  const c10::NoGradGuard no_grad;
  const auto responses = static_cast<std::size_t>(embedding_RE.size(0));
  const std::vector<std::int64_t> length(length_.begin(),
                                         length_.begin() + static_cast<std::ptrdiff_t>(responses));
  const std::int64_t longest = *std::max_element(length.begin(), length.end());
  const at::Tensor length_R = Indices(length, model.Device());
  CacheAttention attention(*this, length_R, longest);
  const at::Tensor hidden_RE = model.Hidden(embedding_RE, length_R, attention);
  for (std::size_t row = 0; row < responses; ++row) ++length_[row];
  return model.Logits(hidden_RE);
}

void KeyValueCache::Keep(const std::vector<std::int64_t>& rows) {
  const at::Tensor index = Indices(rows, k_RGTD_.front().device());
  for (std::size_t layer = 0; layer < k_RGTD_.size(); ++layer) {
    k_RGTD_[layer] = k_RGTD_[layer].index_select(0, index);
    v_RGTD_[layer] = v_RGTD_[layer].index_select(0, index);
  }
  std::vector<std::int64_t> kept;
  for (const std::int64_t row : rows) kept.push_back(length_[static_cast<std::size_t>(row)]);
  length_ = std::move(kept);
}

}  // namespace plural::trainer
