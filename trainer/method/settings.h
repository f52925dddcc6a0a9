// Method settings: what a recipe decides about the training method.
//
// Owns: plain values, without libtorch. Does not own: their keys and ranges (recipe/schema.h, and the file of
// a method for its own keys). Thread rule: values.
#pragma once

#include <cstdint>
#include <map>
#include <stdexcept>
#include <string>
#include <string_view>

#include "data/labelling.h"

namespace plural::trainer {

// How the choice of a latent enters the loss (docs/methods.md 4.3).
enum class LatentEstimator : std::uint8_t {
  kGumbelSoft,  // one soft draw per response; the mixed embedding precedes it
  kExact,       // the expectation over all latents
};

struct LatentSettings {
  std::int64_t latents = 20;  // K
  LatentEstimator estimator = LatentEstimator::kGumbelSoft;
  double temperature = 0.67;  // of the soft Gumbel draw
  double bow_weight = 1.0;    // lambda of the bag-of-words term
};

// Values of the keys that the files of methods declare, by name.
using OwnValues = std::map<std::string, double, std::less<>>;

struct MethodSettings {
  data::LabelSettings label;
  // -log(1-p) is cut at -log(clamp), with zero gradient beyond (as the reference code does, 1e-6); 0: no
  // clamp.
  double unlikelihood_clamp = 1e-6;
  // A factor of the unlikelihood term as a whole, besides the weights of its tokens: a run may lower it on
  // its way.
  double unlikelihood_scale = 1.0;
  LatentSettings latent;
  OwnValues own;

  // Errors: std::logic_error for a key that no method declares.
  double Own(std::string_view key) const {
    const auto found = own.find(key);
    if (found == own.end()) throw std::logic_error("no method declares the key " + std::string(key));
    return found->second;
  }
};

}  // namespace plural::trainer
