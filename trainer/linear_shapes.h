// The shapes of a model's linear layers, without the model.
//
// Owns: which dimensions of a config they have. Does not own: what is counted with them (estimate.h,
// model_flops.h). Thread rule: pure functions.
#pragma once

#include <cstdint>
#include <string>

#include "trainer/model/config.h"

namespace plural::trainer {

struct LinearShape {
  std::int64_t inputs = 0, outputs = 0;
};

// `name`: as in adapter.targets. Errors: std::logic_error for another one.
LinearShape ShapeOf(const ModelConfig& config, const std::string& name);

}  // namespace plural::trainer
