// Attention: who sees whom.
//
// Owns: the visibility of one forward pass (a token tree, padded causal rows, or a key-value cache) and
// the call of the kernel. Does not own: projections, positions. Thread rule: one thread, one pass.
#pragma once

#include <ATen/core/TensorBody.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "data/rows.h"
#include "trainer/ops/terms.h"

namespace plural::trainer {

class Attention {
 public:
  virtual ~Attention() = default;
  // q_NHD [N, H, D], k_NGD and v_NGD [N, G, D], rotated already -> [N, H * D]. Called once a layer, in
  // layer order; of a pass also again, in any order (Decoder::HiddenRecomputed).
  virtual at::Tensor operator()(std::int64_t layer, const at::Tensor& q_NHD, const at::Tensor& k_NGD,
                                const at::Tensor& v_NGD) = 0;
};

// Attention of a pass: tree rows see their ancestors and themselves, padded rows are causal. `terms` says
// how far back in path position a layer's rows see, how scores are scaled and whether they are bounded.
std::unique_ptr<Attention> MakePassAttention(const data::RowPass& pass, const AttentionTerms& terms,
                                             at::ScalarType dtype, at::Device device);

// What differs between the layers of one pass is their window: an element of Windows a kind of layer.
struct LayerWindows {
  std::vector<std::int64_t> windows;  // distinct; 0: none, also for a window that no row outgrows
  std::vector<std::size_t> of_layer;  // index into `windows`
};
LayerWindows WindowsOf(const data::RowPass& pass, const AttentionTerms& terms);

}  // namespace plural::trainer
