#include "trainer/generate/path_attention.h"

#include <cmath>

#include "trainer/model/host_loops.h"
#include "trainer/model/host_vectors.h"

namespace plural::trainer::host {
namespace {

// Values of `dim` summed side by side in registers.
constexpr int kSideBySide = 4;

template <class T>
PLURAL_INLINE void ScoresLoop(const PathAttentionInput<T>& in, T* scores) {
  constexpr std::int64_t kWidth = Lanes<T>::kWidth;
  const std::int64_t shared = in.heads / in.groups;
  for (std::int64_t t = 0; t < in.tokens; ++t) {
    const T* keys = in.keys + in.path[t] * in.groups * in.dim;
    for (std::int64_t head = 0; head < in.heads; ++head) {
      const T* key = keys + head / shared * in.dim;
      const T* query = in.query + head * in.dim;
      Vector<T> sum{};
      for (std::int64_t d = 0; d < in.dim; d += kWidth) {
        sum += Load(query + d, in.dim - d) * Load(key + d, in.dim - d);
      }
      scores[head * in.tokens + t] = SumLanes(SumQuarters<T>(sum));
    }
  }
}

template <class T>
PLURAL_INLINE void WeightedValuesLoop(const PathAttentionInput<T>& in, const T* weights, T* out) {
  constexpr std::int64_t kWidth = Lanes<T>::kWidth;
  const std::int64_t shared = in.heads / in.groups;
  for (std::int64_t head = 0; head < in.heads; ++head) {
    const T* values = in.values + head / shared * in.dim;
    const T* weight = weights + head * in.tokens;
    for (std::int64_t begin = 0; begin < in.dim; begin += kSideBySide * kWidth) {
      Vector<T> sum[kSideBySide] = {};
      for (std::int64_t t = 0; t < in.tokens; ++t) {
        const T* value = values + in.path[t] * in.groups * in.dim;
#pragma GCC unroll 4
        for (int v = 0; v < kSideBySide; ++v) {
          const std::int64_t d = begin + v * kWidth;
          if (d < in.dim) sum[v] += weight[t] * Load(value + d, in.dim - d);
        }
      }
#pragma GCC unroll 4
      for (int v = 0; v < kSideBySide; ++v) {
        const std::int64_t d = begin + v * kWidth;
        if (d < in.dim) Store(out + head * in.dim + d, sum[v], in.dim - d);
      }
    }
  }
}

PLURAL_CLONES void Scores(const PathAttentionInput<float>& in, float* scores) { ScoresLoop(in, scores); }
PLURAL_CLONES void WeightedValues(const PathAttentionInput<float>& in, const float* weights, float* out) {
  WeightedValuesLoop(in, weights, out);
}
void Scores(const PathAttentionInput<double>& in, double* scores) { ScoresLoop(in, scores); }
void WeightedValues(const PathAttentionInput<double>& in, const double* weights, double* out) {
  WeightedValuesLoop(in, weights, out);
}

template <class T>
void Attend(const PathAttentionInput<T>& in, T* scores, const T* zeros, T* lse, T* out) {
  Scores(in, scores);
  MaskedSoftmax(scores, zeros, 1.0 / std::sqrt(static_cast<double>(in.dim)), in.heads, 1, in.tokens, lse);
  WeightedValues(in, scores, out);
}

}  // namespace

void PathAttention(const PathAttentionInput<float>& in, float* scores, const float* zeros, float* lse,
                   float* out) {
  Attend(in, scores, zeros, lse, out);
}
void PathAttention(const PathAttentionInput<double>& in, double* scores, const double* zeros, double* lse,
                   double* out) {
  Attend(in, scores, zeros, lse, out);
}

}  // namespace plural::trainer::host
