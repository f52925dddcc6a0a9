#include "trainer/generate/sampler.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

namespace plural::trainer {
namespace {

// Weights exp((z - max) / temperature); tokens cut by a filter get 0.
template <typename Real>
std::vector<double> TemperedWeights(std::span<const Real> logits, double temperature) {
  const double top = *std::max_element(logits.begin(), logits.end());
  std::vector<double> weights(logits.size());
  for (std::size_t i = 0; i < logits.size(); ++i) weights[i] = std::exp((logits[i] - top) / temperature);
  return weights;
}

void KeepTopK(std::vector<double>& weights, std::int64_t top_k) {
  if (top_k <= 0 || top_k >= static_cast<std::int64_t>(weights.size())) return;
  std::vector<double> sorted = weights;
  std::nth_element(sorted.begin(), sorted.begin() + (top_k - 1), sorted.end(), std::greater<>());
  const double edge = sorted[static_cast<std::size_t>(top_k - 1)];
  for (double& weight : weights) {
    if (weight < edge) weight = 0.0;
  }
}

// Keeps the smallest set of most likely tokens whose mass reaches top_p; always at least one.
void KeepTopP(std::vector<double>& weights, double top_p) {
  if (top_p >= 1.0) return;
  std::vector<std::size_t> order;
  double total = 0.0;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    if (weights[i] > 0.0) order.push_back(i);
    total += weights[i];
  }
  // Stable, so that equal tokens are kept in order of id on every platform.
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return weights[a] > weights[b]; });
  double mass = 0.0;
  for (const std::size_t token : order) {
    if (mass >= top_p * total && mass > 0.0) weights[token] = 0.0;
    mass += weights[token];
  }
}

}  // namespace

template <typename Real>
data::Token SampleToken(std::span<const Real> logits, const SamplingSettings& settings, double uniform) {
  if (settings.temperature == 0.0) {
    return static_cast<data::Token>(std::max_element(logits.begin(), logits.end()) - logits.begin());
  }
  std::vector<double> weights = TemperedWeights(logits, settings.temperature);
  KeepTopK(weights, settings.top_k);
  KeepTopP(weights, settings.top_p);
  double total = 0.0;
  for (const double weight : weights) total += weight;
  const double threshold = uniform * total;
  double cumulative = 0.0;
  std::size_t last = 0;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    if (weights[i] == 0.0) continue;
    last = i;
    cumulative += weights[i];
    if (cumulative > threshold) return static_cast<data::Token>(i);
  }
  return static_cast<data::Token>(last);  // rounding left the threshold at the very end
}

template <typename Real>
double LogProbability(std::span<const Real> logits, data::Token token) {
  const double top = *std::max_element(logits.begin(), logits.end());
  double sum = 0.0;
  for (const Real z : logits) sum += std::exp(z - top);
  return logits[static_cast<std::size_t>(token)] - top - std::log(sum);
}

template data::Token SampleToken<float>(std::span<const float>, const SamplingSettings&, double);
template data::Token SampleToken<double>(std::span<const double>, const SamplingSettings&, double);
template double LogProbability<float>(std::span<const float>, data::Token);
template double LogProbability<double>(std::span<const double>, data::Token);

}  // namespace plural::trainer
