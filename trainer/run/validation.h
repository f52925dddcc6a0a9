// Validation: figures on a corpus that is not trained on, while training.
//
// Owns: the corpus's first groups, the loss and the exact figures on them, a few sampled responses to each
// prompt. Does not own: when it happens (train.h), the figures of a group (evaluation.h), sampling
// (generate/generator.h). Thread rule: one thread.
#pragma once

#include "data/corpus.h"
#include "dist/collectives.h"
#include "dist/world.h"
#include "trainer/method/latent_figures.h"
#include "trainer/model/decoder.h"
#include "trainer/recipe/recipe.h"
#include "trainer/run/metrics.h"

namespace plural::trainer {

class Validation {
 public:
  // Keeps the groups in memory, on every rank. Errors: those of Corpus::Read. `recipe` outlives this.
  Validation(const Recipe& recipe, const ModelConfig& config, at::Device device, data::Corpus& corpus);

  // Measures `model`, group g on rank g % size; sums are made in the order of groups, so the figures do not
  // depend on the number of ranks. Returns the line's figures on every rank, without event and step. Touches
  // no gradient and no state of the run. COLLECTIVE. Errors: those of Generate.
  //
  // The loss is that of the training method, numbers as in epoch 0; nats_per_token is over the positives.
  // `peft` adds what the numbers decide, distribution_matching the figures of the targets, cvf those of the
  // latents (for which it draws as in epoch 0); with
  // validation.responses, the mean number of different responses a prompt and Distinct-n over tokens.
  MetricsLine Measure(const Decoder& model, const dist::World& world, dist::Collectives& collectives) const;

 private:
  struct OfGroup;
  // `latents`: filled by cvf.
  OfGroup MeasureGroup(const Decoder& model, const data::Group& group, LatentSums& latents) const;
  void AddSampled(const Decoder& model, const dist::World& world, dist::Collectives& collectives,
                  MetricsLine& line) const;

  const Recipe& recipe_;
  data::PackSettings pack_;
  std::vector<data::Group> groups_;
};

}  // namespace plural::trainer
