#include "trainer/kernels/path_attention.h"

#include "trainer/kernels/host_vectors.h"

namespace plural::trainer::host {
namespace {

// Vectors of `dim` that are summed in registers at once.
constexpr int kSideBySide = 4;
// Tokens prefetched: a path's own tokens lie far apart, so the hardware predicts none of them.
constexpr std::int64_t kTokensAhead = 4;
constexpr std::int64_t kCacheLine = 64;

template <class T>
PLURAL_INLINE void Fetch(const PathAttentionInput<T>& in, std::int64_t t, const T* pool, std::int64_t offset,
                         std::int64_t count) {
  if (t >= in.tokens) return;
  const T* token = pool + in.path[t] * in.shared_heads * in.dim + offset;
  constexpr auto kStep = static_cast<std::int64_t>(kCacheLine / sizeof(T));
  for (std::int64_t i = 0; i < count; i += kStep) __builtin_prefetch(token + i);
}

template <class T>
PLURAL_INLINE void ScoresLoop(const PathAttentionInput<T>& in, Computed<T>* scores) {
  constexpr std::int64_t kWidth = Lanes<T>::kWidth;
  const std::int64_t shared = in.heads / in.shared_heads;
  for (std::int64_t t = 0; t < in.tokens; ++t) {
    Fetch(in, t + kTokensAhead, in.keys, 0, in.shared_heads * in.dim);
    const T* keys = in.keys + in.path[t] * in.shared_heads * in.dim;
    for (std::int64_t head = 0; head < in.heads; ++head) {
      const T* key = keys + head / shared * in.dim;
      const T* query = in.query + head * in.dim;
      Vector<T> sum{};
      for (std::int64_t d = 0; d < in.dim; d += kWidth) {
        sum += Load(query + d, in.dim - d) * Load(key + d, in.dim - d);
      }
      scores[head * in.tokens + t] = SumLanes(SumQuarters<Computed<T>>(sum));
    }
  }
}

// Sums the values that `heads` heads from `head` on share, at the vectors of `dim` from `begin` on.
template <class T, int heads>
PLURAL_INLINE void WeightedValuesPart(const PathAttentionInput<T>& in, const Computed<T>* weights,
                                      std::int64_t head, std::int64_t begin, T* out) {
  constexpr std::int64_t kWidth = Lanes<T>::kWidth;
  const std::int64_t offset = head / (in.heads / in.shared_heads) * in.dim + begin;
  const Computed<T>* weight = weights + head * in.tokens;
  Vector<T> sum[heads][kSideBySide] = {};
  for (std::int64_t t = 0; t < in.tokens; ++t) {
    Fetch(in, t + 2 * kTokensAhead, in.values, offset, kSideBySide * kWidth);
    const T* value = in.values + in.path[t] * in.shared_heads * in.dim + offset;
#pragma GCC unroll 4
    for (int v = 0; v < kSideBySide; ++v) {
      const std::int64_t left = in.dim - begin - v * kWidth;
      if (left <= 0) continue;
      const Vector<T> part = Load(value + v * kWidth, left);
#pragma GCC unroll 2
      for (int h = 0; h < heads; ++h) sum[h][v] += weight[h * in.tokens + t] * part;
    }
  }
#pragma GCC unroll 2
  for (int h = 0; h < heads; ++h) {
#pragma GCC unroll 4
    for (int v = 0; v < kSideBySide; ++v) {
      const std::int64_t left = in.dim - begin - v * kWidth;
      if (left > 0) Store(out + (head + h) * in.dim + begin + v * kWidth, sum[h][v], left);
    }
  }
}

template <class T>
PLURAL_INLINE void WeightedValuesLoop(const PathAttentionInput<T>& in, const Computed<T>* weights, T* out) {
  const std::int64_t shared = in.heads / in.shared_heads;
  for (std::int64_t begin = 0; begin < in.dim; begin += kSideBySide * Lanes<T>::kWidth) {
    if (shared % 2 == 0) {
      for (std::int64_t head = 0; head < in.heads; head += 2) {
        WeightedValuesPart<T, 2>(in, weights, head, begin, out);
      }
    } else {
      for (std::int64_t head = 0; head < in.heads; ++head) {
        WeightedValuesPart<T, 1>(in, weights, head, begin, out);
      }
    }
  }
}

PLURAL_CLONES void Scores(const PathAttentionInput<float>& in, float* scores) { ScoresLoop(in, scores); }
PLURAL_CLONES void WeightedValues(const PathAttentionInput<float>& in, const float* weights, float* out) {
  WeightedValuesLoop(in, weights, out);
}
PLURAL_CLONES void Scores(const PathAttentionInput<c10::BFloat16>& in, float* scores) {
  ScoresLoop(in, scores);
}
PLURAL_CLONES void WeightedValues(const PathAttentionInput<c10::BFloat16>& in, const float* weights,
                                  c10::BFloat16* out) {
  WeightedValuesLoop(in, weights, out);
}
void Scores(const PathAttentionInput<double>& in, double* scores) { ScoresLoop(in, scores); }
void WeightedValues(const PathAttentionInput<double>& in, const double* weights, double* out) {
  WeightedValuesLoop(in, weights, out);
}

template <class T>
void Attend(const PathAttentionInput<T>& in, Computed<T>* scores, T* out) {
  Scores(in, scores);
  SoftmaxOfScores(scores, in.terms, in.heads, in.tokens);
  WeightedValues(in, scores, out);
}

}  // namespace

void PathAttention(const PathAttentionInput<float>& in, float* scores, float* out) {
  Attend(in, scores, out);
}
void PathAttention(const PathAttentionInput<c10::BFloat16>& in, float* scores, c10::BFloat16* out) {
  Attend(in, scores, out);
}
void PathAttention(const PathAttentionInput<double>& in, double* scores, double* out) {
  Attend(in, scores, out);
}

}  // namespace plural::trainer::host
