// Validation: figures on a corpus that is not trained on, while training.
//
// Owns: the corpus's first groups, the loss and the exact figures on them, a few sampled responses to each
// prompt. Does not own: when it happens (train.h), the figures of a group (evaluation.h), sampling
// (generate/generator.h). Thread rule: one thread.
#pragma once

#include "data/corpus.h"
#include "dist/collectives.h"
#include "dist/world.h"
#include "trainer/method/method.h"
#include "trainer/model/decoder.h"
#include "trainer/run/metrics.h"

namespace plural::trainer {

class Validation {
 public:
  struct Settings {
    const Method* method = nullptr;
    MethodSettings values;  // of the method
    data::PackSettings pack;
    std::int64_t groups = 64;    // the corpus's first ones
    std::int64_t responses = 5;  // sampled to each prompt; 0: nothing is sampled
    std::int64_t max_new_tokens = 64;
    double temperature = 1.0;
  };

  // Keeps the groups in memory, on every rank. Errors: those of Corpus::Read.
  Validation(const Settings& settings, data::Corpus& corpus);

  // Measures `model`, group g on rank g % size; sums are made in the order of groups, so the figures do not
  // depend on the number of ranks. Returns the line's figures on every rank, without event and step. Touches
  // no gradient and no state of the run. COLLECTIVE. Errors: those of Generate.
  //
  // The loss is that of the training method, with the draws of epoch 0; nats_per_token is over the positives.
  // The method adds its figures; with `responses`, there are the mean number of different responses per
  // prompt and Distinct-n over tokens.
  MetricsLine Measure(const Decoder& model, const dist::World& world, dist::Collectives& collectives) const;

 private:
  Sums MeasureGroup(const Decoder& model, const data::Group& group) const;
  // COLLECTIVE.
  void AddSampled(const Decoder& model, const dist::World& world, dist::Collectives& collectives,
                  MetricsLine& line) const;

  const Settings settings_;
  std::vector<data::Group> groups_;
};

}  // namespace plural::trainer
