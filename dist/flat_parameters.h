// Flat parameters: all trainable tensors in one buffer, all their gradients in another.
//
// Owns: the two buffers and where each tensor lies in them. Does not own: the meaning of names, the
// update (trainer/state/optimizer.h). Thread rule: one thread.
//
// After construction every given tensor is a view of the parameter buffer, and its .grad a view of
// the gradient buffer, into which autograd accumulates in place. A later .to(dtype) of a parameter
// would silently break this; CheckAliasing() finds it.
#pragma once

#include <ATen/core/TensorBody.h>

#include <cstdint>
#include <string>
#include <vector>

namespace plural::dist {

struct NamedTensor {
  std::string name;
  at::Tensor tensor;
};

class FlatParameters {
 public:
  // Spans begin at multiples of kAlignment elements (a cache line of fp32), so `size` may be followed by
  // padding up to the next span. Padding is zero in both buffers: it adds nothing to sums and norms, and
  // an update that maps (0, gradient 0) to 0 keeps it so.
  static constexpr std::int64_t kAlignment = 16;
  struct Span {
    std::string name;
    std::vector<std::int64_t> shape;
    std::int64_t offset = 0;  // elements, from the start of the buffer
    std::int64_t size = 0;    // elements, without padding
  };

  // All tensors are leaves that require a gradient, of one dtype (fp32 or fp64) and one device; a tied
  // tensor is given once. Spans keep the given order. Values are kept, gradients start at zero.
  // Errors: std::invalid_argument naming the tensor.
  explicit FlatParameters(std::vector<NamedTensor> tensors);

  const std::vector<Span>& Spans() const { return spans_; }
  const std::vector<NamedTensor>& Tensors() const { return tensors_; }
  at::Tensor Values() const { return values_; }        // [n], n with padding
  at::Tensor Gradients() const { return gradients_; }  // [n]
  void ZeroGradients();
  // Throws std::logic_error naming the first tensor whose values or gradient left the buffer.
  void CheckAliasing() const;

 private:
  std::vector<NamedTensor> tensors_;
  std::vector<Span> spans_;
  at::Tensor values_, gradients_;
};

}  // namespace plural::dist
