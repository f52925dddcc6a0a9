#include "trainer/state/spike_window.h"

#include <algorithm>
#include <cmath>

namespace plural::trainer {
namespace {

// The mean of the two middle ones of an even number.
double Median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  if (values.size() % 2 == 1) return *middle;
  return 0.5 * (*std::max_element(values.begin(), middle) + *middle);
}

void KeepLast(std::vector<double>& values, std::int64_t most) {
  const auto beyond = static_cast<std::ptrdiff_t>(values.size()) - most;
  if (beyond > 0) values.erase(values.begin(), values.begin() + beyond);
}

}  // namespace

std::optional<Spike> FindSpike(const SpikeWindow& window, const SpikeSettings& settings, double loss,
                               double grad_norm) {
  const auto find = [&](const char* figure, std::vector<double> values,
                        double value) -> std::optional<Spike> {
    KeepLast(values, settings.window_steps);  // a resume may have made it smaller
    const auto steps = static_cast<std::int64_t>(values.size());
    if (2 * steps < settings.window_steps) return std::nullopt;
    const double median = Median(std::move(values));
    if (!(median > 0.0) || !(value > settings.factor * median)) return std::nullopt;
    return Spike{.figure = figure, .value = value, .median = median, .steps = steps};
  };
  if (auto spike = find("grad_norm", window.grad_norms, grad_norm)) return spike;
  return find("loss", window.losses, loss);
}

void AcceptStep(SpikeWindow& window, const SpikeSettings& settings, double loss, double grad_norm) {
  window.skipped_in_row = 0;
  if (!std::isfinite(loss) || !std::isfinite(grad_norm)) return;
  window.losses.push_back(loss);
  window.grad_norms.push_back(grad_norm);
  KeepLast(window.losses, settings.window_steps);
  KeepLast(window.grad_norms, settings.window_steps);
}

void SkipStep(SpikeWindow& window) {
  ++window.skipped_steps;
  ++window.skipped_in_row;
}

}  // namespace plural::trainer
