// Pass losses: the backward passes of one rank's part of a step, or of a validation, one after the other.
//
// Owns: how the passes of a step become losses with gradients, and the sums that they report. Does not own:
// when gradients are sent (run/train_step.h), the loss of one pass (objective.h). Thread rule: one thread.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "data/labelled_group.h"
#include "data/rows.h"
#include "trainer/method/method.h"
#include "trainer/model/decoder.h"

namespace plural::trainer {

// The context of the passes. All references outlive the losses.
struct LossContext {
  const Decoder& model;
  const Method& method;
  const MethodSettings& settings;
  std::span<const data::RowPass> passes;
  std::span<const data::LabelledGroup> groups;  // of this rank, indexed by the passes
  double scale = 1.0;  // 1 / groups of the step over all ranks, in the passes' weights
  std::optional<std::uint64_t> dropout_key = {};
  std::vector<bool> recompute = {};  // per pass: layers are computed twice; empty: in none
  // Asks for the log-probabilities of all sequences, even if the method needs none.
  bool whole_sequences = false;

  bool Recomputes(std::size_t pass) const { return !recompute.empty() && recompute[pass]; }
};

// One call of backward on `root`, which is a loss where `gradient` is undefined.
struct BackwardPart {
  at::Tensor root, gradient;
  bool last = false;  // of the step on this rank: gradients are complete after it

  void Backward() const { root.backward(gradient); }
};

class PassLosses {
 public:
  virtual ~PassLosses() = default;

  // Forward of the next part, whose backward must have run before Next is called again; nothing
  // when all parts have run. Without gradients (at::NoGradGuard) no backward is run.
  virtual std::optional<BackwardPart> Next() = 0;
  // After the last part: adds the method's terms and sums of all passes, in one copy from the
  // device. Where whole sequences are asked for, `log_p` gets their log-probabilities,
  // [group][sequence], nats; with latents one number, the sum of their expectations.
  virtual void AddTo(Sums& sums, std::vector<std::vector<double>>& log_p) = 0;
};

std::unique_ptr<PassLosses> MakePassLosses(const LossContext& context);

// Runs all parts without gradients and adds what they report to `sums`; `log_p` as in AddTo.
void AddWithoutGradients(const LossContext& context, Sums& sums, std::vector<std::vector<double>>& log_p);

}  // namespace plural::trainer
