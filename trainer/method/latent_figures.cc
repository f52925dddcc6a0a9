#include "trainer/method/latent_figures.h"

#include <algorithm>
#include <cmath>
#include <span>

namespace plural::trainer {
namespace {

// -sum p log p of `weight`s divided by `total`.
double EntropyNats(std::span<const double> weight, double total) {
  double entropy = 0.0;
  for (const double w : weight) {
    if (w > 0.0) entropy -= w / total * std::log(w / total);
  }
  return entropy;
}

constexpr std::size_t kScalars = 4;

}  // namespace

void LatentSums::AddResponse(const std::vector<double>& posterior_K, const std::vector<double>& nll_z) {
  ++responses;
  q_K.resize(posterior_K.size(), 0.0);
  for (std::size_t z = 0; z < q_K.size(); ++z) q_K[z] += posterior_K[z];
  entropy_nats += EntropyNats(posterior_K, 1.0);
  if (nll_z.empty()) return;
  const auto [low, high] = std::ranges::minmax_element(nll_z);
  nll_spread_nats += *high - *low;
}

void LatentSums::Add(const LatentSums& other) {
  responses += other.responses;
  q_K.resize(std::max(q_K.size(), other.q_K.size()), 0.0);
  for (std::size_t z = 0; z < other.q_K.size(); ++z) q_K[z] += other.q_K[z];
  entropy_nats += other.entropy_nats;
  bow += other.bow;
  nll_spread_nats += other.nll_spread_nats;
}

std::vector<double> LatentSums::Packed(std::int64_t latents) const {
  std::vector<double> numbers = {static_cast<double>(responses), entropy_nats, bow, nll_spread_nats};
  numbers.insert(numbers.end(), q_K.begin(), q_K.end());
  numbers.resize(kScalars + static_cast<std::size_t>(latents), 0.0);
  return numbers;
}

LatentSums LatentSums::Unpacked(const std::vector<double>& numbers) {
  LatentSums sums;
  sums.responses = static_cast<std::int64_t>(numbers[0]);
  sums.entropy_nats = numbers[1];
  sums.bow = numbers[2];
  sums.nll_spread_nats = numbers[3];
  sums.q_K.assign(numbers.begin() + kScalars, numbers.end());
  return sums;
}

LatentFigures FiguresOfLatents(const LatentSums& sums) {
  const auto responses = static_cast<double>(sums.responses);
  const double mean_entropy = EntropyNats(sums.q_K, responses);
  return {.used_latents = std::exp(mean_entropy),
          .information_nats = mean_entropy - sums.entropy_nats / responses,
          .latent_nll_spread_nats = sums.nll_spread_nats / responses};
}

}  // namespace plural::trainer
