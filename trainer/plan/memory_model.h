// The memory model: tensors that training on a pass holds at its peak.
//
// Owns: which tensors the code keeps for backward, and what it needs on top of them. Does not own: weights,
// gradients and moments (estimate.h), what the allocator makes of it. Thread rule: pure functions. It reads
// like decoder.h and head.h: who changes what they save changes it here, and its test says so.
#pragma once

#include <cstdint>

#include "data/rows.h"
#include "trainer/model/config.h"
#include "trainer/model/decoder.h"

namespace plural::trainer {

struct PassMemory {
  std::int64_t saved_bytes = 0;  // by the decoder, from forward until its backward
  std::int64_t head_bytes = 0;   // on top, while the head goes forward and back
  std::int64_t layer_bytes = 0;  // on top, while a layer goes back
  std::int64_t PeakBytes() const;
};

// What a process on the CPU holds besides its program, weights, gradients, moments and a pass's tensors. Both
// are measured, not derived (docs/performance.md): what MPI and the compute libraries take when they start to
// work, some hundred generated kernels of a quarter of a megabyte among it, and the share of a pass's bytes
// that the allocator cannot use again at once.
constexpr std::int64_t kLibraryBytes = std::int64_t{60} << 20;
constexpr double kAllocatorSlack = 0.2;
constexpr double kRecomputeSlack = 0.8;  // layers' tensors of many sizes come and go among those that stay

// `adapter`: null when all weights are trained. `element_bytes`: of the compute dtype. `recompute`: layers
// keep their inputs only and go forward again in backward.
PassMemory MemoryOfPass(const ModelConfig& config, const AdapterSettings* adapter, std::int64_t element_bytes,
                        bool recompute, const data::RowPass& pass);

}  // namespace plural::trainer
