// The memory model: tensors that training on a pass holds at its peak.
//
// Owns: which tensors the code keeps for backward, and what it needs on top of them. Does not own:
// weights, gradients and moments (estimate.h), the allocator's overhead. Thread rule: pure
// functions. It mirrors decoder.h and head.h: a change of what they save is made here too, and a
// test checks that.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>

#include "data/rows.h"
#include "trainer/model/config.h"
#include "trainer/model/decoder.h"

namespace plural::trainer {

struct PassMemory {
  std::int64_t saved_bytes = 0;  // by the decoder, from forward until its backward
  std::int64_t head_bytes = 0;   // on top, during the head's forward and backward
  std::int64_t layer_bytes = 0;  // on top, during a layer's backward
  std::int64_t PeakBytes() const;
};

// Memory of a process on the CPU besides its program, weights, gradients, moments and a pass's
// tensors. The figures are measured, not derived (docs/performance.md): the memory that MPI and the
// compute libraries take when they start to work, with some hundred generated kernels of a quarter
// of a megabyte, and the share of a pass's bytes that the allocator cannot reuse at once.
constexpr std::int64_t kLibraryBytes = std::int64_t{60} << 20;
constexpr double kAllocatorSlack = 0.2;
constexpr double kRecomputeSlack = 0.8;  // layers' tensors are freed between others that stay

// `adapter`: null when all weights are trained. `element_bytes`: of the compute dtype. `recompute`:
// layers keep only their inputs and run forward again in backward. `device`: on a GPU a tree takes dense
// masks, and keys and values repeated for all query heads, where no kernel for trees serves: `tree_kernel`
// false, or shapes that it does not take. Plain rows with a window take masks, too. Not compared with a GPU's
// allocator yet.
PassMemory MemoryOfPass(const ModelConfig& config, const AdapterSettings* adapter, std::int64_t element_bytes,
                        bool recompute, const data::RowPass& pass, at::Device device = at::kCPU,
                        bool tree_kernel = true);

}  // namespace plural::trainer
