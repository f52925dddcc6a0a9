// Objectives: from edge log-probabilities to the loss of a pass.
//
// Owns: the loss value, the split into its terms, the clamp of the unlikelihood term, exact figures of
// a target distribution. Does not own: weights (data/labelling.h) or the head (model/head.h).
// Thread rule: pure functions.
#pragma once

#include <ATen/core/TensorBody.h>

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "data/labelling.h"
#include "data/rows.h"
#include "trainer/model/decoder.h"
#include "trainer/model/head.h"

namespace plural::trainer {

struct ObjectiveSettings {
  // -log(1-p) is cut at -log(clamp), with zero gradient beyond (as the reference code does, 1e-6); 0: no
  // clamp.
  double unlikelihood_clamp = 1e-6;
  // Leaves edges without weight out of the head: nothing of the loss is lost, and sequence_log_p is empty.
  bool weighted_edges_only = false;
  // Made of (seed, step); rows add their own paths. None: nothing is dropped.
  std::optional<std::uint64_t> dropout_key = {};
  // Layers are computed twice and keep their inputs only.
  bool recompute = false;
};

// What a pass has to say, on the model's device: reading it would wait for the pass, so a step reads all of
// its passes at its end.
struct PassValues {
  at::Tensor likelihood, unlikelihood;  // scalars
  at::Tensor log_p_E;                   // undefined where only weighted edges are there
};
struct PassResult {
  at::Tensor loss;  // scalar with gradient: likelihood + unlikelihood
  PassValues values;
};

// Forward of one pass through model, head and loss; the caller runs backward on `loss`.
PassResult RunPass(const Decoder& model, const data::RowPass& pass, const ObjectiveSettings& settings,
                   const HeadSettings& head = {});

struct PassFigures {
  double likelihood = 0.0;    // weighted sum of -log p
  double unlikelihood = 0.0;  // weighted sum of -log(1-p), alpha included
  // Per sequence of the pass: sum of log p over its response, nats; empty where only weighted edges are
  // there.
  std::vector<double> sequence_log_p;
};
// Of each pass, in one copy from the device.
std::vector<PassFigures> ReadFigures(std::span<const data::RowPass> passes,
                                     const std::vector<PassValues>& values);
PassFigures ReadFigures(const data::RowPass& pass, const PassValues& values);

// Exact figures of one group of distribution matching from its sequences' log-probabilities
// (docs/methods.md 8.2), all in nats: KL(p* || p), cross-entropy, H(p*), mass on targets, entropy of p
// renormalised on the targets.
struct TargetFigures {
  double kl_nats = 0.0;
  double cross_entropy_nats = 0.0;
  double target_entropy_nats = 0.0;
  double target_mass = 0.0;
  double entropy_nats = 0.0;
};
TargetFigures FiguresOfTargets(const data::LabelledGroup& group, const std::vector<double>& sequence_log_p);

}  // namespace plural::trainer
