// Two ranks on one GPU.
//
// Owns: finding them by their GPUs' UUIDs. Does not own: who asks for the UUIDs. Both sides of the module
// need it, so it is a header alone. Thread rule: free of state.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "dist/error.h"

namespace plural::dist {

// Errors: ResourceError where another rank's UUID is that of `rank`.
inline void RequireOwnGpu(const std::vector<std::string>& uuid_of_rank, int rank) {
  for (std::size_t other = 0; other < uuid_of_rank.size(); ++other) {
    if (static_cast<int>(other) == rank ||
        uuid_of_rank[other] != uuid_of_rank[static_cast<std::size_t>(rank)]) {
      continue;
    }
    throw ResourceError(
        "ranks " + std::to_string(rank) + " and " + std::to_string(other) +
        " use the same GPU; start one rank per GPU, or compute on the CPU (model.device=cpu, or "
        "--device cpu); ask Slurm for --gpus-per-node=N with N "
        "the ranks of a node: --gpus-per-task shows one GPU to all ranks of a node, since "
        "mpirun is one task there; instances of one MIG card cannot reduce together");
  }
}

}  // namespace plural::dist
