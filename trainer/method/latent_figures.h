// Latent figures: how far CVF uses its latents.
//
// Owns: sums over responses that add up over passes, steps and ranks, and the figures made of them.
// Does not own: the posteriors (latent_unit.h). Thread rule: pure functions.
//
// A method without prior and KL term may leave latents unused. These figures show how many are
// used, and how much they tell about the response (docs/methods.md 8.5).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "trainer/method/sums.h"

namespace plural::trainer {

struct LatentSums {
  std::int64_t responses = 0;    // recognised
  std::vector<double> q_K;       // sum of the posteriors q; empty: there are no latents
  double entropy_nats = 0.0;     // sum of H(q)
  double nll_spread_nats = 0.0;  // exact estimator: sum of max_z - min_z of a response's mean token loss

  // Adds one response; `nll_z` is empty unless it is known for every latent.
  void AddResponse(const std::vector<double>& posterior_K, const std::vector<double>& nll_z);
  void Add(const LatentSums& other);

  // The same as named sums (sums.h), "latents.responses", "latents.posterior.1", ..., for `latents` latents.
  static std::vector<std::string> Names(std::int64_t latents);
  static LatentSums From(const Sums& sums);
  void AddTo(Sums& sums) const;
};

struct LatentFigures {
  double used_latents = 0.0;            // exp of the entropy of the mean posterior
  double information_nats = 0.0;        // that entropy - the mean entropy of a posterior: I(z; response)
  double latent_nll_spread_nats = 0.0;  // per token, mean over responses; exact estimator
};
// Precondition: at least one response.
LatentFigures FiguresOfLatents(const LatentSums& sums);

}  // namespace plural::trainer
