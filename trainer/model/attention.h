// Attention: who sees whom.
//
// Owns: the visibility of one forward pass (a token tree, padded causal rows, or a key-value cache) and
// the call of the kernel. Does not own: projections, positions. Thread rule: one thread, one pass.
#pragma once

#include <ATen/core/TensorBody.h>

#include <cstdint>
#include <memory>

#include "data/rows.h"

namespace plural::trainer {

class Attention {
 public:
  virtual ~Attention() = default;
  // q_NHD [N, H, D], k_NGD and v_NGD [N, G, D], rotated already -> [N, H * D]. Called once a layer, in
  // layer order.
  virtual at::Tensor operator()(std::int64_t layer, const at::Tensor& q_NHD, const at::Tensor& k_NGD,
                                const at::Tensor& v_NGD) = 0;
};

// Attention of a pass: tree rows see their ancestors and themselves, padded rows are causal.
// `sliding_window` > 0 limits how far back in path position a row sees.
std::unique_ptr<Attention> MakePassAttention(const data::RowPass& pass, std::int64_t sliding_window,
                                             at::ScalarType dtype, at::Device device);

}  // namespace plural::trainer
