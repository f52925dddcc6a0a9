// AdamW's update of one range of the flat buffers by libtorch's operators, where no kernel serves
// (trainer/ops/adamw_cuda.h).
//
// Owns: the order of operations, the size of what the operators make beside the buffers. Does not own: which
// ranges there are and their rates (optimizer.h), the loops of the CPU (optimizer.cc). Thread rule: one
// thread.
#pragma once

#include <cstdint>

#include "trainer/ops/adamw_cuda.h"

namespace plural::trainer {

// 64 M elements: at most three temporaries of 256 MiB, and enough work that no GPU waits for its host.
constexpr std::int64_t kUpdatePiece = std::int64_t{1} << 26;

// Updates elements [offset, offset + size), at most `piece` at a time: whatever the piece, the same bits.
void UpdateByOperators(const AdamWBuffers& buffers, std::int64_t offset, std::int64_t size,
                       const AdamWScalars<double>& u, std::int64_t piece = kUpdatePiece);

}  // namespace plural::trainer
