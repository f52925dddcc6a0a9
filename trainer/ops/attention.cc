#include "trainer/ops/attention.h"

#include <ATen/SDPBackend.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/_fused_sdp_choice.h>
#include <ATen/ops/_scaled_dot_product_efficient_attention.h>
#include <ATen/ops/_scaled_dot_product_flash_attention.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "trainer/ops/capped_attention.h"
#include "trainer/ops/part_scope.h"
#include "trainer/ops/to_device.h"
#include "trainer/ops/tree_attention.h"
#include "trainer/ops/tree_attention_cuda.h"

namespace plural::trainer {
namespace {

// True when flash attention can compute this causal attention on a GPU, where query heads may share a
// key head: it takes no mask, and not every type, head dimension and GPU. libtorch knows which; where
// it prefers cuDNN, flash attention works as well.
bool FlashServes(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, double scale) {
  if (q.size(3) % 8 != 0) return false;  // the kernel's own condition: libtorch would pad before the choice
  const auto choice = static_cast<at::SDPBackend>(
      at::_fused_sdp_choice(q, k, v, std::nullopt, 0.0, true, scale, /*enable_gqa=*/true));
  return choice == at::SDPBackend::flash_attention || choice == at::SDPBackend::cudnn_attention;
}

// Visibility of B lines of T tokens in the form that the kernels take: causal, or an additive mask
// [B, 1, T, T] of 0 and -inf. Every token sees itself, so no row is all -inf.
class PassAttention : public Attention {
 public:
  // `masks`: one per window; undefined: causal.
  PassAttention(std::int64_t batch, std::vector<at::Tensor> masks, std::vector<std::size_t> mask_of_layer,
                const AttentionTerms& terms)
      : batch_(batch),
        masks_(std::move(masks)),
        mask_of_layer_(std::move(mask_of_layer)),
        scale_(terms.scale),
        softcap_(terms.softcap) {}

  at::Tensor operator()(std::int64_t layer, const at::Tensor& q_NHD, const at::Tensor& k_NGD,
                        const at::Tensor& v_NGD) override {
    const PartScope attention(Part::kAttention);
    const at::Tensor& mask = masks_[mask_of_layer_.at(static_cast<std::size_t>(layer))];
    const std::int64_t heads = q_NHD.size(1);
    const bool causal = !mask.defined();
    const at::Tensor q = ToHeads(q_NHD);
    at::Tensor k = ToHeads(k_NGD), v = ToHeads(v_NGD), out;
    const bool flash = q.is_cuda() && causal && softcap_ == 0.0 && FlashServes(q, k, v, scale_);
    if (!flash) {  // the others want a key head per query head
      k = k.repeat_interleave(heads / k_NGD.size(1), 1);
      v = v.repeat_interleave(heads / k_NGD.size(1), 1);
    }
    if (flash) {
      out = std::get<0>(at::_scaled_dot_product_flash_attention(q, k, v, 0.0, true, false, scale_));
    } else if (softcap_ > 0.0) {
      out = CappedAttention(q, k, v, mask, {.scale = scale_, .softcap = softcap_});
    } else if (q.is_cuda()) {
      // Called by name: the dispatcher could choose cuDNN, whose masked backward has returned NaN.
      const auto bias = causal ? std::optional<at::Tensor>() : mask.expand({batch_, heads, -1, -1});
      out =
          std::get<0>(at::_scaled_dot_product_efficient_attention(q, k, v, bias, true, 0.0, causal, scale_));
    } else {
      const auto bias = causal ? std::optional<at::Tensor>() : mask;
      out = std::get<0>(at::_scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, causal, bias, scale_));
    }
    return out.transpose(1, 2).reshape({q_NHD.size(0), heads * q_NHD.size(2)});
  }

 private:
  // [N, heads, D] -> [B, heads, T, D]
  at::Tensor ToHeads(const at::Tensor& x) const {
    return x.view({batch_, x.size(0) / batch_, x.size(1), x.size(2)}).transpose(1, 2);
  }

  std::int64_t batch_;
  std::vector<at::Tensor> masks_;
  std::vector<std::size_t> mask_of_layer_;
  double scale_, softcap_;
};

// visible [.., T, T] -> additive mask whose rows lie a multiple of 8 apart, as CUDA requires.
at::Tensor AdditiveMask(const at::Tensor& visible, at::ScalarType dtype) {
  std::vector<std::int64_t> shape = visible.sizes().vec();
  const std::int64_t length = shape.back();
  shape.back() = (length + 7) / 8 * 8;
  const at::Tensor mask = at::zeros(shape, visible.options().dtype(dtype)).narrow(-1, 0, length);
  mask.masked_fill_(visible.bitwise_not(), -std::numeric_limits<double>::infinity());
  return mask;
}

}  // namespace

LayerWindows WindowsOf(const data::RowPass& pass, const AttentionTerms& terms) {
  std::int32_t farthest = 0;
  for (const std::int32_t position : pass.position) farthest = std::max(farthest, position);
  LayerWindows found;
  for (const std::int64_t of_layer : terms.window_of_layer) {
    const std::int64_t window = of_layer <= farthest ? of_layer : 0;
    const auto known = std::find(found.windows.begin(), found.windows.end(), window);
    found.of_layer.push_back(static_cast<std::size_t>(known - found.windows.begin()));
    if (known == found.windows.end()) found.windows.push_back(window);
  }
  return found;
}

std::unique_ptr<Attention> MakePassAttention(const data::RowPass& pass, const AttentionTerms& terms,
                                             at::ScalarType dtype, at::Device device) {
  const PartScope attention(Part::kAttention);
  const bool tree = !pass.end.empty();
  if (tree && device.is_cpu()) return MakeTreeAttention(pass, terms);
  if (tree && device.is_cuda()) {
    if (auto kernel = MakeTreeAttentionOnCuda(pass, terms, dtype, device)) return kernel;
  }
  LayerWindows layers = WindowsOf(pass, terms);
  std::vector<at::Tensor> masks;
  for (const std::int64_t window : layers.windows) {
    if (!tree && window == 0) {
      masks.emplace_back();
      continue;
    }
    const at::Tensor row = at::arange(pass.length, at::TensorOptions().dtype(at::kInt).device(device));
    at::Tensor visible = row.unsqueeze(0) <= row.unsqueeze(1);  // [query, key]
    if (tree) visible = visible & (row.unsqueeze(1) < ToDevice(pass.end, at::kInt, device).unsqueeze(0));
    visible = visible.unsqueeze(0);
    if (window > 0) {
      const at::Tensor position = ToDevice(pass.position, at::kInt, device).view({pass.batch, pass.length});
      visible = visible & (position.unsqueeze(2) - position.unsqueeze(1) < window);
    }
    masks.push_back(AdditiveMask(visible.unsqueeze(1), dtype));
  }
  return std::make_unique<PassAttention>(pass.batch, std::move(masks), std::move(layers.of_layer), terms);
}

}  // namespace plural::trainer
