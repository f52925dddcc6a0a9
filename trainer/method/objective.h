// Objectives: from the values of a pass's edges to its loss.
//
// Owns: the values of an edge that a loss reads, the likelihood and unlikelihood loss with its
// clamp, forward of one pass. Does not own: weights (methods/), the head (model/head.h), a step's
// passes together (pass_losses.h). Thread rule: pure functions.
#pragma once

#include <ATen/core/TensorBody.h>

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "data/rows.h"
#include "trainer/method/method.h"
#include "trainer/model/decoder.h"
#include "trainer/model/head.h"

namespace plural::trainer {

// One value per edge of a pass, fp64 on the model's device; log-probabilities are differentiable.
struct EdgeValues {
  at::Tensor likelihood_E, unlikelihood_E;  // weights
  at::Tensor log_p_E;                       // of the edge's token
  at::Tensor log_one_minus_p_E;             // log(1 - p)
  // At the method's temperature b, undefined where it has none: log softmax(z / b) of the edge's token, and
  // the entropy of softmax(z / b) in the edge's row, nats, which is not differentiable.
  at::Tensor tempered_log_p_E, tempered_entropy_E;
};

// -sum w log p, and -sum u log(1 - p) with the clamp of `settings` (docs/methods.md 2.4).
std::vector<at::Tensor> LikelihoodAndUnlikelihood(const EdgeValues& edges, const MethodSettings& settings);

struct ObjectiveSettings {
  const Method* method = nullptr;  // has the edge_loss; null: LikelihoodAndUnlikelihood
  MethodSettings values = {};      // that the loss reads
  // Leaves edges without weight out of the head: the loss is the same, and sequence_log_p is empty.
  bool weighted_edges_only = false;
  // A key made of (seed, step), to which rows add their own paths. None: nothing is dropped.
  std::optional<std::uint64_t> dropout_key = {};
  // Layers keep only their inputs and are computed again in backward.
  bool recompute = false;
};

// Figures of a pass on the model's device: reading them would wait for the pass, so a step reads those of all
// its passes at its end.
struct PassValues {
  std::vector<at::Tensor> terms;  // scalars, in the order of the method's terms
  at::Tensor log_p_E;             // undefined with weighted_edges_only
};
struct PassResult {
  at::Tensor loss;  // scalar with gradient: the sum of the terms
  PassValues values;
};

// Forward of one pass through model, head and loss; the caller runs backward on `loss`.
PassResult RunPass(const Decoder& model, const data::RowPass& pass, const ObjectiveSettings& settings,
                   const HeadSettings& head = {});

struct PassFigures {
  std::vector<double> terms;
  // Per sequence of the pass: sum of log p over its response, nats; empty with weighted_edges_only.
  std::vector<double> sequence_log_p;
};
// The figures of each pass, in one copy from the device.
std::vector<PassFigures> ReadFigures(std::span<const data::RowPass> passes,
                                     const std::vector<PassValues>& values);
PassFigures ReadFigures(const data::RowPass& pass, const PassValues& values);

}  // namespace plural::trainer
