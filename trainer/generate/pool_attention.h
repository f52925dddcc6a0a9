// Attention of one new token per path over a pool of keys and values.
//
// Owns: what the device must know of the paths, the ways to compute it: loops on the CPU, a kernel on a GPU
// (ops/path_attention_cuda.h), operators that gather the paths side by side where none serves. Does not own:
// the pool, who holds a slot (key_value_cache.h). Thread rule: one thread.
//
// Shape letters: R paths, T tokens, S slots, H query heads, G key-value heads, D head dimension.
#pragma once

#include <ATen/core/TensorBody.h>

#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "trainer/kernels/host_loops.h"
#include "trainer/model/config.h"
#include "trainer/ops/attention.h"
#include "trainer/ops/cuda_kernels.h"
#include "trainer/ops/packed_upload.h"

namespace plural::trainer {

// A token of a path occupies one slot.
using CacheSlot = std::int32_t;
using CachePath = std::vector<CacheSlot>;

// Per layer: [S, G, D].
struct CachePool {
  std::vector<at::Tensor> k_SGD, v_SGD;
};

class PoolAttention : public Attention {
 public:
  // The paths end with the slot of their new token, which is in no other one. What the device must know of
  // them is added to `upload`, which must be sent before this is called. Pool, paths, upload and kernels must
  // outlive it. `kernels` null: none.
  PoolAttention(const ModelConfig& config, const CachePool& pool, std::span<const CachePath> paths,
                const CudaKernels* kernels, PackedUpload& upload);

  // The new tokens' keys and values go into their slots; their queries see the paths.
  at::Tensor operator()(std::int64_t layer, const at::Tensor& q_NHD, const at::Tensor& k_NGD,
                        const at::Tensor& v_NGD) override;
  // The positions of the new tokens, [R].
  at::Tensor Position() const { return upload_.Longs(position_); }

 private:
  // What a window leaves of each path.
  struct Visible {
    std::vector<const CacheSlot*> first_R;
    std::vector<std::int64_t> tokens_R;
    std::int64_t longest = 0;
    PackedUpload::Place slots_RT, count_R;  // where paths are gathered
    at::Tensor mask_R11T;
  };

  Visible VisibleWithin(std::int64_t window) const;
  at::Tensor OnHost(const Visible& visible, const at::Tensor& q_NHD, const at::Tensor& k_SGD,
                    const at::Tensor& v_SGD) const;
  at::Tensor Gathered(Visible& visible, const at::Tensor& q_NHD, const at::Tensor& k_SGD,
                      const at::Tensor& v_SGD) const;

  enum class Way : std::uint8_t { kHostLoops, kKernel, kGather };

  const ModelConfig& config_;
  const CachePool& pool_;
  const std::span<const CachePath> paths_;
  const CudaKernels* const kernels_;
  const PackedUpload& upload_;
  const host::ScoreTerms terms_;
  Way way_ = Way::kHostLoops;
  PackedUpload::Place position_, newest_, first_, slot_;
  std::int64_t longest_ = 0;                 // tokens of a path
  std::map<std::int64_t, Visible> visible_;  // by window
};

}  // namespace plural::trainer
