// Terms of the operators: the constants of a layer that norms, activations, rotation and attention take.
//
// Owns: plain values, without libtorch, so that a model's shape can be read without it. Does not
// own: the operators. Thread rule: values.
#pragma once

#include <cstdint>
#include <vector>

namespace plural::trainer {

struct NormTerms {
  double eps = 1e-6;
  double weight_offset = 0.0;  // 1 where stored weights are differences from 1
};

enum class Activation : std::uint8_t {
  kSilu,      // x / (1 + exp(-x))
  kGeluTanh,  // x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))
};

struct Rope {
  enum class Scaling : std::uint8_t {
    kNone,
    kLinear,  // every frequency divided by `factor`
    kLlama3,  // slow ones divided, fast ones kept, those between blended
  };
  double theta = 10000.0;
  Scaling scaling = Scaling::kNone;
  double factor = 1.0;
  // kLlama3: a pair that turns fewer than low_freq_factor times within
  // original_max_position_embeddings is slow, one that turns more than high_freq_factor times is
  // fast.
  double low_freq_factor = 1.0, high_freq_factor = 4.0;
  std::int64_t original_max_position_embeddings = 0;

  bool operator==(const Rope&) const = default;
};

// The terms of attention that follow from a model's shape.
struct AttentionTerms {
  // One window per layer; 0: none. With a window of n a row sees itself and n - 1 positions before.
  std::vector<std::int64_t> window_of_layer;
  double scale = 1.0;    // of scores
  double softcap = 0.0;  // bound of scores (SoftCap in pointwise.h); 0: none
  std::int64_t heads = 0, shared_heads = 0, head_dim = 0;  // of queries, of keys; 0: not said
};

}  // namespace plural::trainer
