// Path attention: one new token per path, which attends to the cached tokens of its path.
//
// Owns: the CPU loop over keys and values that lie anywhere in a pool. Does not own: the pool, the paths
// (key_value_cache.h). A path's result depends on that path alone, to the bit. Thread rule: pure functions.
#pragma once

#include <cstdint>

#include "trainer/kernels/host_loops.h"

namespace plural::trainer::host {

// The query heads of one path are `heads` vectors of `dim` values; head h sees key-value head h *
// shared_heads / heads. keys and values hold [slots, shared_heads, dim]; the path's tokens are the `tokens`
// slots at `path`. scores is scratch of [heads, tokens].
template <class T>
struct PathAttentionInput {
  const T* query = nullptr;
  const T* keys = nullptr;
  const T* values = nullptr;
  const std::int32_t* path = nullptr;
  std::int64_t tokens = 0, heads = 0, shared_heads = 0, dim = 0;
  ScoreTerms terms;
};

// out [heads, dim] = softmax(logits of query keys^T by `terms`) values.
void PathAttention(const PathAttentionInput<float>& in, float* scores, float* out);
void PathAttention(const PathAttentionInput<c10::BFloat16>& in, float* scores, c10::BFloat16* out);
void PathAttention(const PathAttentionInput<double>& in, double* scores, double* out);

}  // namespace plural::trainer::host
