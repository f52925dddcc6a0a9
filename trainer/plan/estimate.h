// Estimates: what a run will need, from its recipe and shapes alone.
//
// Owns: counts of trained parameters, sizes of checkpoints and of memory, as `plural dry-run` prints them.
// Does not own: the layouts it counts (model/, checkpoint.h). Thread rule: pure functions.
#pragma once

#include <cstdint>

#include "trainer/model/config.h"
#include "trainer/model/decoder.h"
#include "trainer/recipe/recipe.h"

namespace plural::trainer {

// Parameters of the LoRA factors: rank * (inputs + outputs) of every target in every layer, once for lm_head.
std::int64_t AdapterParameterCount(const ModelConfig& config, const AdapterSettings& settings);

struct RunEstimate {
  std::int64_t base_parameters = 0;
  std::int64_t trained_parameters = 0;
  std::int64_t trained_bytes = 0;     // the adapter or model written at the end
  std::int64_t checkpoint_bytes = 0;  // trained parameters and AdamW's two moments
  // Memory held from the first step to the last; what a pass adds is in memory_model.h.
  std::int64_t weight_bytes = 0;  // frozen weights
  // Trained parameters, gradients and their partial sums, two moments, a checkpoint's copy; of these the
  // partial sums and the copy, which are in host memory beside a GPU, too.
  std::int64_t training_bytes = 0, host_bytes = 0;
};

// `ranks`: those of the run, over which the moments may be sharded.
RunEstimate EstimateRun(const Recipe& recipe, const ModelConfig& config, int ranks = 1);

}  // namespace plural::trainer
