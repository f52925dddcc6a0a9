#include "trainer/method/latent_figures.h"

#include <algorithm>
#include <cmath>
#include <span>
#include <string_view>

namespace plural::trainer {
namespace {

// -sum p log p with p = weight / total.
double EntropyNats(std::span<const double> weight, double total) {
  double entropy = 0.0;
  for (const double w : weight) {
    if (w > 0.0) entropy -= w / total * std::log(w / total);
  }
  return entropy;
}

constexpr std::string_view kPosterior = "latents.posterior.";

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
  nll_spread_nats += other.nll_spread_nats;
}

std::vector<std::string> LatentSums::Names(std::int64_t latents) {
  std::vector<std::string> names = {"latents.responses", "latents.entropy_nats", "latents.nll_spread_nats"};
  for (std::int64_t z = 1; z <= latents; ++z) names.push_back(std::string(kPosterior) + std::to_string(z));
  return names;
}

LatentSums LatentSums::From(const Sums& sums) {
  LatentSums latents;
  latents.responses = static_cast<std::int64_t>(sums["latents.responses"]);
  latents.entropy_nats = sums["latents.entropy_nats"];
  latents.nll_spread_nats = sums["latents.nll_spread_nats"];
  for (std::size_t i = 0; i < sums.Names().size(); ++i) {
    if (sums.Names()[i].starts_with(kPosterior)) latents.q_K.push_back(sums.Values()[i]);
  }
  return latents;
}

void LatentSums::AddTo(Sums& sums) const {
  sums["latents.responses"] += static_cast<double>(responses);
  sums["latents.entropy_nats"] += entropy_nats;
  sums["latents.nll_spread_nats"] += nll_spread_nats;
  for (std::size_t z = 0; z < q_K.size(); ++z)
    sums[std::string(kPosterior) + std::to_string(z + 1)] += q_K[z];
}

LatentFigures FiguresOfLatents(const LatentSums& sums) {
  const auto responses = static_cast<double>(sums.responses);
  const double mean_entropy = EntropyNats(sums.q_K, responses);
  return {.used_latents = std::exp(mean_entropy),
          .information_nats = mean_entropy - sums.entropy_nats / responses,
          .latent_nll_spread_nats = sums.nll_spread_nats / responses};
}

}  // namespace plural::trainer
