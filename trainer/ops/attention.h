// Attention: which row sees which.
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
  // q_NHD [N, H, D], k_NGD and v_NGD [N, G, D], rotated already -> [N, H * D]. Called once per
  // layer, in layer order; for a recomputed pass once more, in any order
  // (Decoder::HiddenRecomputed).
  virtual at::Tensor operator()(std::int64_t layer, const at::Tensor& q_NHD, const at::Tensor& k_NGD,
                                const at::Tensor& v_NGD) = 0;
};

// Attention of a pass: tree rows see their ancestors and themselves, padded rows are causal.
// `terms` gives the window of each layer in path positions, and the scale and bound of scores.
std::unique_ptr<Attention> MakePassAttention(const data::RowPass& pass, const AttentionTerms& terms,
                                             at::ScalarType dtype, at::Device device);

// The layers of a pass differ by their window only.
struct LayerWindows {
  std::vector<std::int64_t> windows;  // distinct; 0: none, or one that no row exceeds
  std::vector<std::size_t> of_layer;  // index into `windows`
};
LayerWindows WindowsOf(const data::RowPass& pass, const AttentionTerms& terms);

}  // namespace plural::trainer
