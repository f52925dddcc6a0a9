// The pass of a run that needs most memory, found without running it.
//
// Owns: the steps examined. Does not own: a pass's needs (memory_model.h). Thread rule: one thread.
#pragma once

#include <cstdint>

#include "data/corpus.h"
#include "data/rows.h"
#include "trainer/model/config.h"
#include "trainer/plan/memory_model.h"
#include "trainer/recipe/recipe.h"

namespace plural::trainer {

struct PeakPass {
  PassMemory memory;
  std::int64_t rows = 0;  // fed, padding included
};

// Packs the steps of the run's first epoch that hold the costliest groups, and some evenly spread
// ones, as the rank that gets them would among `ranks`. During a pass of cvf the recognition passes
// of its unit stay in memory. `recompute`: layers are computed twice, except those of recognition
// (latent_unit.h). `device`: that of MemoryOfPass.
PeakPass FindPeakPass(data::Corpus& corpus, const Recipe& recipe, const ModelConfig& config,
                      const data::PackSettings& pack, int ranks, bool recompute,
                      at::Device device = at::kCPU);

}  // namespace plural::trainer
