// Self-consistency: whether a latent's own response is recognised as that latent's (docs/methods.md 8.5).
//
// Owns: which prompts are asked, the counting. Does not own: decoding (generate/generator.h), recognition
// (latent_unit.h). Thread rule: one thread.
#pragma once

#include <cstdint>
#include <vector>

#include "data/group.h"
#include "data/rows.h"
#include "dist/collectives.h"
#include "dist/world.h"
#include "trainer/model/decoder.h"

namespace plural::trainer {

struct SelfConsistency {
  std::int64_t responses = 0;   // one per prompt and latent, decoded greedily
  std::int64_t recognised = 0;  // whose most likely latent is the one they were made with

  // 1 / K where answers do not depend on their latents.
  double Share() const { return static_cast<double>(recognised) / static_cast<double>(responses); }
};

// `prompts`: all of them on every rank, at least one; prompt p is measured on rank p % size. Responses are
// cut at `max_new_tokens`, or where the model's context ends. COLLECTIVE. Errors: those of Generate.
SelfConsistency MeasureSelfConsistency(const Decoder& model, const std::vector<data::Group>& prompts,
                                       std::int64_t max_new_tokens, const data::PackSettings& pack,
                                       const dist::World& world, dist::Collectives& collectives);

}  // namespace plural::trainer
