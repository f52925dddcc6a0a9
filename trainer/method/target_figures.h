// Target figures: exact figures of a target distribution.
//
// Owns: their formulas. Does not own: the log-probabilities (pass_losses.h, evaluation.h). Thread rule: pure
// functions.
#pragma once

#include <vector>

#include "data/labelled_group.h"

namespace plural::trainer {

// Exact figures of one group of distribution matching from its sequences' log-probabilities
// (docs/methods.md 8.2), all in nats: KL(p* || p), cross-entropy, H(p*), mass on targets, entropy of p
// renormalised on the targets.
struct TargetFigures {
  double kl_nats = 0.0;
  double cross_entropy_nats = 0.0;
  double target_entropy_nats = 0.0;
  double target_mass = 0.0;
  double entropy_nats = 0.0;
};
TargetFigures FiguresOfTargets(const data::LabelledGroup& group, const std::vector<double>& sequence_log_p);

}  // namespace plural::trainer
