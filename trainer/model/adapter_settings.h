// The settings of what is trained beside a base model, as plain values.
//
// Owns: the settings of a LoRA adapter. Does not own: parameters (linear.h). Thread rule: values.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace plural::trainer {

struct AdapterSettings {
  std::int64_t rank = 16;
  double alpha = 32.0;
  double dropout = 0.0;
  std::vector<std::string> targets;  // names of linear layers (config.h), lm_head
};

}  // namespace plural::trainer
