// The parts of a train step, by name.
//
// Owns: the names under which libtorch's recorder sees our code, and the scope that marks a part's
// work. Does not own: the recorder (run/profile.h). Thread rule: a scope lives on one thread;
// scopes nest, and time belongs to the innermost one.
//
// For .cc files only, since the header below is large. While nothing records, a scope costs some
// nanoseconds.
#pragma once

#include <ATen/record_function.h>

#include <array>

namespace plural::trainer {

enum class Part {
  kLinear,     // the linear layers' own matrix multiplies
  kAttention,  // scores, softmax and sums, with its masks
  kHead,       // vocabulary projection, log-probabilities and their gradient
  kLora,       // adapters of the linear layers
  kNorm,       // norms, activations, rotary embedding
  kOptimizer,  // gradient's norm, update
  kWaiting,    // waiting for other ranks' gradients and figures
  kData,       // waiting for the next batch, and its conversion to tensors
  kStep,       // the whole step: its time that belongs to no other part
};

// In the order of the enumeration.
inline constexpr std::array<const char*, 9> kPartNames = {"linear",    "attention", "head", "lora", "norm",
                                                          "optimizer", "waiting",   "data", "step"};

class PartScope {
 public:
  explicit PartScope(Part part) : recorder_(at::RecordScope::USER_SCOPE) {
    if (recorder_.isActive()) recorder_.before(kPartNames[static_cast<std::size_t>(part)]);
  }

 private:
  at::RecordFunction recorder_;
};

}  // namespace plural::trainer
