// AdamW's update of one range of the flat buffers by libtorch's operators, which devices take.
//
// Owns: the order of operations, the size of what the operators make beside the buffers. Does not own: which
// ranges there are and their rates (optimizer.h), the loops of the CPU (optimizer.cc). Thread rule: one
// thread.
#pragma once

#include <ATen/core/TensorBody.h>

#include <cstdint>

namespace plural::trainer {

// The scalars of one update, in the precision of the buffer.
template <typename T>
struct AdamWScalars {
  T gradient_scale, decay, one_minus_beta1, beta2, one_minus_beta2, correction2_sqrt, eps, step_size;
};

struct AdamWBuffers {
  at::Tensor values, gradients, first_moment, second_moment;  // [n], of the whole model
};

// 64 M elements: at most three temporaries of 256 MiB, and enough work that no GPU waits for its host.
constexpr std::int64_t kUpdatePiece = std::int64_t{1} << 26;

// Updates elements [offset, offset + size), at most `piece` at a time: whatever the piece, the same bits.
void UpdateByOperators(const AdamWBuffers& buffers, std::int64_t offset, std::int64_t size,
                       const AdamWScalars<double>& u, std::int64_t piece = kUpdatePiece);

}  // namespace plural::trainer
