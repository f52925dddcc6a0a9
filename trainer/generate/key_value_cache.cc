#include "trainer/generate/key_value_cache.h"

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/_scaled_dot_product_attention_math.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <limits>
#include <map>
#include <optional>
#include <utility>

#include "data/rows.h"
#include "data/tree.h"
#include "trainer/kernels/path_attention.h"
#include "trainer/ops/capped_attention.h"
#include "trainer/ops/to_device.h"

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

// Slots that the pool starts with for each response; it doubles when they are used up.
constexpr std::int64_t kSlotsPerResponse = 16;

at::Tensor Indices(const std::vector<std::int64_t>& values, at::Device device) {
  return ToDevice(values, at::kLong, device);
}

}  // namespace

Prefill RunPrefill(const Decoder& model, const data::Group& group, const std::vector<int>& tails) {
  std::vector<std::vector<data::Token>> sequences;
  for (const int tail : tails) {
    std::vector<data::Token>& tokens = sequences.emplace_back(group.prompt_tokens);
    const auto& rest = group.tails.at(static_cast<std::size_t>(tail));
    tokens.insert(tokens.end(), rest.begin(), rest.end());
  }
  data::FedTree fed = data::FeedAll(sequences);
  data::RowPass pass;
  pass.length = pass.rows = fed.tree.Rows();
  pass.token = std::move(fed.tree.token);
  pass.position = std::move(fed.tree.position);
  pass.end = std::move(fed.tree.end);

  const c10::NoGradGuard no_grad;
  Prefill prefill;
  CapturingAttention attention(
      MakePassAttention(pass, model.Config().Attention(), model.DType(), model.Device()), prefill);
  const at::Tensor token = ToDevice(pass.token, at::kInt, model.Device()).to(at::kLong);
  const at::Tensor position = ToDevice(pass.position, at::kInt, model.Device()).to(at::kLong);

  // Of the last layer only the rows that predict something are computed; equal tails share theirs.
  std::vector<std::int64_t> read;
  for (const auto& path : fed.rows) read.push_back(path.back());
  std::sort(read.begin(), read.end());
  read.erase(std::unique(read.begin(), read.end()), read.end());
  const at::Tensor logits_SV =
      model.Logits(model.Hidden(model.Embed(token), position, attention, RowNumbers(read, model.Device())));
  std::vector<std::int64_t> place;  // of each tail's last row among those
  for (const auto& path : fed.rows) {
    place.push_back(std::lower_bound(read.begin(), read.end(), path.back()) - read.begin());
  }
  prefill.logits_LV = logits_SV.index_select(0, Indices(place, model.Device()));
  prefill.path = std::move(fed.rows);
  return prefill;
}

KeyValueCache::KeyValueCache(const Decoder& model, std::int64_t responses, std::int64_t tokens)
    : path_(static_cast<std::size_t>(responses)), config_(model.Config()) {
  const auto options = at::TensorOptions().dtype(model.DType()).device(model.Device());
  const std::int64_t slots = tokens + responses * kSlotsPerResponse;
  for (std::int64_t layer = 0; layer < config_.num_hidden_layers; ++layer) {
    // Zeros, not garbage: masked keys are multiplied by 0, and 0 * NaN is NaN.
    k_SGD_.push_back(at::zeros({slots, config_.num_key_value_heads, config_.head_dim}, options));
    v_SGD_.push_back(at::zeros_like(k_SGD_.back()));
  }
  users_S_.assign(static_cast<std::size_t>(slots), 0);
  for (std::int64_t slot = slots; slot-- > 0;) free_.push_back(static_cast<Slot>(slot));
}

void KeyValueCache::Grow() {
  const auto slots = static_cast<std::int64_t>(users_S_.size());
  for (std::size_t layer = 0; layer < k_SGD_.size(); ++layer) {
    k_SGD_[layer] = at::cat({k_SGD_[layer], at::zeros_like(k_SGD_[layer])}, 0);
    v_SGD_[layer] = at::cat({v_SGD_[layer], at::zeros_like(v_SGD_[layer])}, 0);
  }
  users_S_.resize(static_cast<std::size_t>(2 * slots), 0);
  for (std::int64_t slot = 2 * slots; slot-- > slots;) free_.push_back(static_cast<Slot>(slot));
}

KeyValueCache::Slot KeyValueCache::Take() {
  if (free_.empty()) Grow();
  const Slot slot = free_.back();
  free_.pop_back();
  users_S_[static_cast<std::size_t>(slot)] = 1;
  return slot;
}

void KeyValueCache::Use(const Path& path, std::int32_t change) {
  for (const Slot slot : path) {
    if (slot < 0) continue;
    std::int32_t& users = users_S_[static_cast<std::size_t>(slot)];
    users += change;
    if (users == 0) free_.push_back(slot);
  }
}

void KeyValueCache::Start(std::int64_t row, const Prefill& prefill, std::size_t tail) {
  const at::Tensor& keys = prefill.k_NGD.front();
  if (!import_.keys.is_same(keys)) {
    Use(import_.slot_of_row, -1);
    import_ = {keys, Path(static_cast<std::size_t>(keys.size(0)), -1)};
  }
  const auto r = static_cast<std::size_t>(row);
  if (r >= path_.size()) path_.resize(r + 1);
  Use(path_[r], -1);
  path_[r].clear();
  std::vector<std::int64_t> from, to;
  for (const std::int32_t tree_row : prefill.path.at(tail)) {
    Slot& slot = import_.slot_of_row[static_cast<std::size_t>(tree_row)];
    if (slot < 0) {
      slot = Take();
      from.push_back(tree_row);
      to.push_back(slot);
    }
    path_[r].push_back(slot);
  }
  Use(path_[r], 1);
  if (from.empty()) return;
  const at::Tensor from_rows = Indices(from, keys.device()), to_slots = Indices(to, keys.device());
  for (std::size_t layer = 0; layer < k_SGD_.size(); ++layer) {
    k_SGD_[layer].index_copy_(0, to_slots, prefill.k_NGD[layer].index_select(0, from_rows));
    v_SGD_[layer].index_copy_(0, to_slots, prefill.v_NGD[layer].index_select(0, from_rows));
  }
}

// One new token a path: its key and value go into the path's newest slot, its queries see the path.
class KeyValueCache::PoolAttention : public Attention {
 public:
  // The first `rows` paths already end with the slot of their new token.
  PoolAttention(KeyValueCache& cache, std::size_t rows)
      : cache_(cache),
        terms_{.scale = cache.config_.AttentionScale(), .softcap = cache.config_.attn_logit_softcapping} {
    const at::Tensor& pool = cache.k_SGD_.front();
    host_ = pool.is_cpu();
    std::vector<std::int64_t> newest;
    for (std::size_t r = 0; r < rows; ++r) newest.push_back(cache.path_[r].back());
    newest_R_ = Indices(newest, pool.device());
  }

  at::Tensor operator()(std::int64_t layer, const at::Tensor& q_NHD, const at::Tensor& k_NGD,
                        const at::Tensor& v_NGD) override {
    const at::Tensor& k_SGD = cache_.k_SGD_[static_cast<std::size_t>(layer)];
    const at::Tensor& v_SGD = cache_.v_SGD_[static_cast<std::size_t>(layer)];
    k_SGD.index_copy_(0, newest_R_, k_NGD);
    v_SGD.index_copy_(0, newest_R_, v_NGD);
    const Visible& visible = VisibleWithin(cache_.config_.WindowOf(layer));
    return host_ ? OnHost(visible, q_NHD.contiguous(), k_SGD, v_SGD) : Gathered(visible, q_NHD, k_SGD, v_SGD);
  }

 private:
  // What a window leaves of each path.
  struct Visible {
    std::vector<const Slot*> first_R;
    std::vector<std::int64_t> tokens_R;
    std::int64_t longest = 0;
    at::Tensor slots_RT, mask_R11T;  // on other devices than the host
  };

  const Visible& VisibleWithin(std::int64_t window) {
    const auto [found, is_new] = visible_.try_emplace(window);
    Visible& visible = found->second;
    if (!is_new) return visible;
    for (std::int64_t r = 0; r < newest_R_.size(0); ++r) {
      const Path& path = cache_.path_[static_cast<std::size_t>(r)];
      auto tokens = static_cast<std::int64_t>(path.size());
      if (window > 0) tokens = std::min(tokens, window);
      visible.first_R.push_back(path.data() + (static_cast<std::int64_t>(path.size()) - tokens));
      visible.tokens_R.push_back(tokens);
      visible.longest = std::max(visible.longest, tokens);
    }
    if (!host_) MakeIndices(visible);
    return visible;
  }

  at::Tensor OnHost(const Visible& visible, const at::Tensor& q_NHD, const at::Tensor& k_SGD,
                    const at::Tensor& v_SGD) const {
    const std::int64_t heads = q_NHD.size(1), dim = q_NHD.size(2);
    const at::Tensor out = at::empty({q_NHD.size(0), heads * dim}, q_NHD.options());
    AT_DISPATCH_FLOATING_TYPES_AND(at::kBFloat16, q_NHD.scalar_type(), "path attention", [&] {
      using Score = host::Computed<scalar_t>;
      at::parallel_for(0, q_NHD.size(0), 1, [&](std::int64_t begin, std::int64_t end) {
        std::vector<Score> scores(static_cast<std::size_t>(heads * visible.longest));
        for (std::int64_t r = begin; r < end; ++r) {
          host::PathAttention({.query = q_NHD.const_data_ptr<scalar_t>() + r * heads * dim,
                               .keys = k_SGD.const_data_ptr<scalar_t>(),
                               .values = v_SGD.const_data_ptr<scalar_t>(),
                               .path = visible.first_R[static_cast<std::size_t>(r)],
                               .tokens = visible.tokens_R[static_cast<std::size_t>(r)],
                               .heads = heads,
                               .groups = k_SGD.size(1),
                               .dim = dim,
                               .terms = terms_},
                              scores.data(), out.mutable_data_ptr<scalar_t>() + r * heads * dim);
        }
      });
    });
    return out;
  }

  // Other devices: the paths' keys are gathered side by side, padded at the right and masked.
  void MakeIndices(Visible& visible) const {
    const at::Tensor& pool = cache_.k_SGD_.front();
    std::vector<std::int64_t> slots;
    for (std::size_t r = 0; r < visible.first_R.size(); ++r) {
      slots.insert(slots.end(), visible.first_R[r], visible.first_R[r] + visible.tokens_R[r]);
      slots.resize((r + 1) * static_cast<std::size_t>(visible.longest), 0);
    }
    visible.slots_RT = Indices(slots, pool.device());
    const at::Tensor tokens_R = Indices(visible.tokens_R, pool.device());
    const at::Tensor hidden_RT =
        at::arange(visible.longest, tokens_R.options()).unsqueeze(0) >= tokens_R.unsqueeze(1);
    visible.mask_R11T = at::zeros({tokens_R.size(0), 1, 1, visible.longest}, pool.options())
                            .masked_fill_(hidden_RT.view({-1, 1, 1, visible.longest}),
                                          -std::numeric_limits<double>::infinity());
  }

  at::Tensor Gathered(const Visible& visible, const at::Tensor& q_NHD, const at::Tensor& k_SGD,
                      const at::Tensor& v_SGD) const {
    const std::int64_t responses = q_NHD.size(0), heads = q_NHD.size(1), dim = q_NHD.size(2);
    const std::int64_t groups = k_SGD.size(1);
    const auto gather = [&](const at::Tensor& pool) {
      return pool.index_select(0, visible.slots_RT)
          .view({responses, visible.longest, groups, dim})
          .transpose(1, 2);
    };
    // The query heads that share a key-value head stand as several queries of it: no copy of keys.
    const at::Tensor q = q_NHD.reshape({responses, groups, heads / groups, dim});
    const at::Tensor k = gather(k_SGD), v = gather(v_SGD);
    const at::Tensor mask = visible.mask_R11T;
    const at::Tensor out =
        terms_.softcap > 0.0
            ? CappedAttention(q, k, v, mask.expand({responses, 1, heads / groups, visible.longest}), terms_)
            : std::get<0>(at::_scaled_dot_product_attention_math(q, k, v, mask, 0.0, false, std::nullopt,
                                                                 terms_.scale));
    return out.reshape({responses, heads * dim});
  }

  KeyValueCache& cache_;
  const host::ScoreTerms terms_;
  bool host_ = false;
  at::Tensor newest_R_;
  std::map<std::int64_t, Visible> visible_;  // by window
};

at::Tensor KeyValueCache::Step(const Decoder& model, const at::Tensor& token_R) {
  return StepEmbeddings(model, model.Embed(token_R));
}

at::Tensor KeyValueCache::StepEmbeddings(const Decoder& model, const at::Tensor& embedding_RE) {
  const c10::NoGradGuard no_grad;
  const auto rows = static_cast<std::size_t>(embedding_RE.size(0));
  std::vector<std::int64_t> position;
  for (std::size_t r = 0; r < rows; ++r) {
    position.push_back(static_cast<std::int64_t>(path_[r].size()));
    path_[r].push_back(Take());
  }
  PoolAttention attention(*this, rows);
  return model.Logits(model.Hidden(embedding_RE, Indices(position, model.Device()), attention));
}

void KeyValueCache::Keep(const std::vector<std::int64_t>& rows) {
  std::vector<Path> kept;
  std::vector<std::size_t> moved_to(path_.size(), rows.size());  // where a row's own path went
  for (const std::int64_t row : rows) {
    const auto r = static_cast<std::size_t>(row);
    if (moved_to[r] == rows.size()) {
      moved_to[r] = kept.size();
      kept.push_back(std::move(path_[r]));
    } else {
      kept.push_back(kept[moved_to[r]]);
      Use(kept.back(), 1);
    }
  }
  for (std::size_t r = 0; r < path_.size(); ++r) {
    if (moved_to[r] == rows.size()) Use(path_[r], -1);
  }
  path_ = std::move(kept);
}

}  // namespace plural::trainer
