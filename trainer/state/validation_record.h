// The validation record: the best figure of each kind that a run has seen, and what collapses have changed.
//
// Owns: the numbers, which figures are better low, the criterion of a collapse. Does not own: what is
// measured (run/validation.h), what is done about it (run/collapse.h), the form on disk (train_state.h).
// Thread rule: one thread.
//
// It is part of the train state, as the spike window is: a validation's figures are the same on every rank,
// so all ranks decide the same, and a run that goes on from a checkpoint decides as if it had not stopped.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace plural::trainer {

struct ValidationFigure {
  std::string name;  // as in metrics.jsonl
  double value = 0.0;
};

struct ValidationRecord {
  struct Best {
    double value = 0.0;
    std::int64_t step = 0;  // after which it was measured
  };
  std::map<std::string, Best, std::less<>> best;
  double unlikelihood_scale = 1.0;  // of the loss's second term, from the next step on
  std::int64_t lowered_in_row = 0;  // by the last validations

  bool Empty() const { return best.empty() && unlikelihood_scale == 1.0; }
};

// A loss, a perplexity or a divergence; of all else more is better.
bool BetterLow(std::string_view figure);

// Keeps those that are better than all before; the first of equal ones stays.
void NoteFigures(ValidationRecord& record, const std::vector<ValidationFigure>& figures, std::int64_t step);

// A figure that is `factor` times worse than its best, or that is no number.
struct Collapse {
  std::string figure;
  double value = 0.0, best = 0.0;
  std::int64_t best_step = 0;
};
// The first of `figures` that has collapsed. One without a best before it is not judged, nor a share that was
// never a tenth: of so few it says little.
std::optional<Collapse> FindCollapse(const ValidationRecord& record,
                                     const std::vector<ValidationFigure>& figures, double factor);

}  // namespace plural::trainer
