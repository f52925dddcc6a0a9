#include "trainer/method/target_figures.h"

#include <cmath>
#include <stdexcept>
#include <string>

namespace plural::trainer {

TargetFigures FiguresOfTargets(const data::LabelledGroup& group, const std::vector<double>& sequence_log_p) {
  if (sequence_log_p.size() != group.sequences.size()) {
    throw std::logic_error("FiguresOfTargets: " + std::to_string(sequence_log_p.size()) +
                           " log-probabilities for " + std::to_string(group.sequences.size()) + " sequences");
  }
  TargetFigures figures;
  for (std::size_t s = 0; s < sequence_log_p.size(); ++s) {
    const double target = group.sequences[s].target;
    if (target > 0.0) {  // 0 log 0 = 0; p = 0 under a positive target gives infinity
      figures.cross_entropy_nats -= target * sequence_log_p[s];
      figures.target_entropy_nats -= target * std::log(target);
    }
    figures.target_mass += std::exp(sequence_log_p[s]);
  }
  figures.kl_nats = figures.cross_entropy_nats - figures.target_entropy_nats;
  for (const double log_p : sequence_log_p) {
    const double log_share = log_p - std::log(figures.target_mass);
    if (std::isfinite(log_share)) figures.entropy_nats -= std::exp(log_share) * log_share;
  }
  return figures;
}

}  // namespace plural::trainer
