// Flat parameters: all trainable tensors in one buffer, all their gradients in another.
//
// Owns: the two buffers and where each tensor lies in them. Does not own: names' meaning, the update
// (trainer/optimizer.h). Thread rule: one thread.
//
// After construction every tensor given is a view of the parameter buffer, and its .grad a view of the
// gradient buffer, into which autograd accumulates in place. A later .to(dtype) of a parameter would
// silently break this: CheckAliasing() finds it.
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
  struct Span {
    std::string name;
    std::vector<std::int64_t> shape;
    std::int64_t offset = 0;  // elements
    std::int64_t size = 0;
  };

  // All tensors have one dtype (fp32 or fp64) and one device. Spans keep the given order.
  explicit FlatParameters(std::vector<NamedTensor> tensors);

  const std::vector<Span>& Spans() const { return spans_; }
  const std::vector<NamedTensor>& Tensors() const { return tensors_; }
  at::Tensor Values() const { return values_; }        // [n]
  at::Tensor Gradients() const { return gradients_; }  // [n]
  void ZeroGradients();
  // Throws std::logic_error naming the first tensor that left the buffer.
  void CheckAliasing() const;

 private:
  std::vector<NamedTensor> tensors_;
  std::vector<Span> spans_;
  at::Tensor values_, gradients_;
};

}  // namespace plural::dist
