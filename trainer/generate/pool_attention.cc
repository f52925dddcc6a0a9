#include "trainer/generate/pool_attention.h"

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/_scaled_dot_product_attention_math.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <limits>
#include <optional>

#include "trainer/kernels/path_attention.h"
#include "trainer/ops/capped_attention.h"
#include "trainer/ops/path_attention_cuda.h"

namespace plural::trainer {

PoolAttention::PoolAttention(const ModelConfig& config, const CachePool& pool,
                             std::span<const CachePath> paths, const CudaKernels* kernels,
                             PackedUpload& upload)
    : config_(config),
      pool_(pool),
      paths_(paths),
      kernels_(kernels),
      upload_(upload),
      terms_{.scale = config.AttentionScale(), .softcap = config.attn_logit_softcapping} {
  const at::Tensor& keys = pool.k_SGD.front();
  way_ = PathAttentionServesOnGpu(kernels, keys.scalar_type(), config.head_dim) ? Way::kKernel
         : keys.is_cpu()                                                        ? Way::kHostLoops
                                                                                : Way::kGather;
  std::vector<std::int64_t> position, newest;
  std::vector<std::int32_t> first = {0}, slots;
  for (const CachePath& path : paths) {
    position.push_back(static_cast<std::int64_t>(path.size()) - 1);
    longest_ = std::max(longest_, static_cast<std::int64_t>(path.size()));
    if (way_ == Way::kKernel) {
      slots.insert(slots.end(), path.begin(), path.end());
      first.push_back(static_cast<std::int32_t>(slots.size()));
    } else {
      newest.push_back(path.back());
    }
  }
  position_ = upload.Add(position);
  if (way_ == Way::kKernel) {
    first_ = upload.Add(first);
    slot_ = upload.Add(slots);
    return;
  }
  newest_ = upload.Add(newest);
  for (std::int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    const auto [found, is_new] = visible_.try_emplace(config.WindowOf(layer));
    if (!is_new) continue;
    Visible& visible = found->second = VisibleWithin(found->first);
    if (way_ == Way::kHostLoops) continue;
    std::vector<std::int64_t> padded;  // side by side
    for (std::size_t r = 0; r < paths.size(); ++r) {
      padded.insert(padded.end(), visible.first_R[r], visible.first_R[r] + visible.tokens_R[r]);
      padded.resize((r + 1) * static_cast<std::size_t>(visible.longest), 0);
    }
    visible.slots_RT = upload.Add(padded);
    visible.count_R = upload.Add(visible.tokens_R);
  }
}

PoolAttention::Visible PoolAttention::VisibleWithin(std::int64_t window) const {
  Visible visible;
  for (const CachePath& path : paths_) {
    auto tokens = static_cast<std::int64_t>(path.size());
    if (window > 0) tokens = std::min(tokens, window);
    visible.first_R.push_back(path.data() + (static_cast<std::int64_t>(path.size()) - tokens));
    visible.tokens_R.push_back(tokens);
    visible.longest = std::max(visible.longest, tokens);
  }
  return visible;
}

at::Tensor PoolAttention::operator()(std::int64_t layer, const at::Tensor& q_NHD, const at::Tensor& k_NGD,
                                     const at::Tensor& v_NGD) {
  const at::Tensor& k_SGD = pool_.k_SGD[static_cast<std::size_t>(layer)];
  const at::Tensor& v_SGD = pool_.v_SGD[static_cast<std::size_t>(layer)];
  const std::int64_t window = config_.WindowOf(layer);
  if (way_ == Way::kKernel) {
    return PathAttentionOnGpu(q_NHD, k_NGD, v_NGD, k_SGD, v_SGD,
                              {upload_.At<std::int32_t>(first_), upload_.At<std::int32_t>(slot_), longest_},
                              terms_, window, *kernels_);
  }
  const at::Tensor newest_R = upload_.Longs(newest_);
  k_SGD.index_copy_(0, newest_R, k_NGD);
  v_SGD.index_copy_(0, newest_R, v_NGD);
  Visible& visible = visible_.at(window);
  return way_ == Way::kHostLoops ? OnHost(visible, q_NHD.contiguous(), k_SGD, v_SGD)
                                 : Gathered(visible, q_NHD, k_SGD, v_SGD);
}

at::Tensor PoolAttention::OnHost(const Visible& visible, const at::Tensor& q_NHD, const at::Tensor& k_SGD,
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
                             .shared_heads = k_SGD.size(1),
                             .dim = dim,
                             .terms = terms_},
                            scores.data(), out.mutable_data_ptr<scalar_t>() + r * heads * dim);
      }
    });
  });
  return out;
}

// The paths' keys are gathered side by side, padded at the right and masked.
at::Tensor PoolAttention::Gathered(Visible& visible, const at::Tensor& q_NHD, const at::Tensor& k_SGD,
                                   const at::Tensor& v_SGD) const {
  const std::int64_t responses = q_NHD.size(0), heads = q_NHD.size(1), dim = q_NHD.size(2);
  const std::int64_t shared_heads = k_SGD.size(1);
  const at::Tensor slots_RT = upload_.Longs(visible.slots_RT);
  if (!visible.mask_R11T.defined()) {
    const at::Tensor tokens_R = upload_.Longs(visible.count_R);
    const at::Tensor hidden_RT =
        at::arange(visible.longest, tokens_R.options()).unsqueeze(0) >= tokens_R.unsqueeze(1);
    visible.mask_R11T = at::zeros({responses, 1, 1, visible.longest}, k_SGD.options())
                            .masked_fill_(hidden_RT.view({-1, 1, 1, visible.longest}),
                                          -std::numeric_limits<double>::infinity());
  }
  const auto gather = [&](const at::Tensor& pool) {
    return pool.index_select(0, slots_RT)
        .view({responses, visible.longest, shared_heads, dim})
        .transpose(1, 2);
  };
  // The query heads that share a key-value head stand as several queries of it: no copy of keys.
  const at::Tensor q = q_NHD.reshape({responses, shared_heads, heads / shared_heads, dim});
  const at::Tensor k = gather(k_SGD), v = gather(v_SGD);
  const at::Tensor mask = visible.mask_R11T;
  const at::Tensor out =
      terms_.softcap > 0.0
          ? CappedAttention(q, k, v, mask.expand({responses, 1, heads / shared_heads, visible.longest}),
                            terms_)
          : std::get<0>(at::_scaled_dot_product_attention_math(q, k, v, mask, 0.0, false, std::nullopt,
                                                               terms_.scale));
  return out.reshape({responses, heads * dim});
}

}  // namespace plural::trainer
