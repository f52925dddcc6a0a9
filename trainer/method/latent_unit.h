// CVF: recognition and generation with latents, after PLATO-2 on a decoder (docs/methods.md 4).
//
// Owns: the two passes and the loss that joins them, the Gumbel draws. Does not own: the sequences
// (methods/cvf.cc), the latents' parameters (model/latents.h), the order of a step
// (run/train_step.h). Thread rule: one thread.
//
//   recognition   [prompt][response incl. EOS][query]   q = softmax of the logits at the query,
//                                                       over K latents
//   generation    [prompt][latent][response incl. EOS]  NLL + bow_weight * BOW, token means of the
//                                                       response
//
// BOW predicts all tokens of the response from the hidden state at the latent alone, through the
// transform and the head's base weight, which BOW never trains.
//
//   gumbel_soft   e = w^T E with w = softmax((logits + g) / temperature), g drawn by (seed, epoch,
//                 group, response); loss = NLL + bow_weight * BOW. The gradient reaches recognition
//                 through e alone
//   exact         e = E_z in K branches of one tree; loss = sum_z q_z (NLL_z + bow_weight * BOW_z)
//
// Recognition and generation of a unit (data::PackGroups) share one parameter set and one loss.
// Generation depends on recognition through the logits only, so backward runs in two parts: each
// generation pass adds to the gradient of the logits and frees its memory, then the recognition
// passes continue from that gradient.
#pragma once

#include <ATen/core/TensorBody.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "data/labelling.h"
#include "data/rows.h"
#include "trainer/method/latent_figures.h"
#include "trainer/method/pass_losses.h"
#include "trainer/method/settings.h"
#include "trainer/model/decoder.h"
#include "trainer/model/head.h"

namespace plural::trainer {

// g = -log(eps - log(u + eps)), eps = 1e-10, for u uniform in [0, 1); as PLATO-2 draws it.
at::Tensor GumbelNoise(const at::Tensor& uniform);
// The K uniform draws of one response, fp64 on the host.
at::Tensor LatentDraws(std::uint64_t latent_key, int response_index, std::int64_t latents);
// softmax((logits + noise) / temperature) over the last dimension.
at::Tensor SoftGumbel(const at::Tensor& logits_RK, const at::Tensor& noise_RK, double temperature);

// Sum of -log p over the tokens of each sequence, with multiplicity, all predicted from one row: sequence q
// from hidden row row_Q[q]. hidden_RE: after the bag-of-words transform. -> [Q] fp64.
at::Tensor BagOfWords(const at::Tensor& hidden_RE, const VocabularyHead& head,
                      const std::vector<std::int64_t>& row_Q,
                      const std::vector<std::vector<data::Token>>& tokens_Q);

// The passes of a unit, as parts of the list of all passes of a step.
struct LatentUnitPasses {
  std::span<const data::RowPass> recognition, generation;
};
std::vector<LatentUnitPasses> LatentUnitsOf(std::span<const data::RowPass> passes);

// Logits of the responses of recognition passes, [R, K] with R in order of (pass, sequence); all passes' rows
// one after the other. Differentiable.
at::Tensor RecognitionLogits(const Decoder& model, std::span<const data::RowPass> passes,
                             std::optional<std::uint64_t> dropout_key = {});

// The most likely latent, 1..K, of each response of `group`. Errors: those of Label (method.h).
std::vector<int> RecognizeLatents(const Decoder& model, const data::Group& group,
                                  const data::PackSettings& pack);

// Figures of units, summed over them.
struct UnitFigures {
  double likelihood = 0.0, bow = 0.0;  // the loss is their sum; bow_weight included
  double logprob_nats = 0.0;           // of all responses, the expectation over q where all latents are tried
  LatentSums sums;
};

// One unit of a step: construct it (forward of recognition), Run each generation pass and backward
// its loss, then FinishBackward. Without gradients (at::NoGradGuard) only the figures are computed.
class LatentUnit {
 public:
  // `groups`: those of the whole step on this rank; `scale`: 1 / groups of the step over all ranks.
  // All references outlive this. `model` has latents.
  LatentUnit(const Decoder& model, std::span<const data::RowPass> recognition,
             std::span<const data::LabelledGroup> groups, double scale, const LatentSettings& settings,
             std::optional<std::uint64_t> dropout_key = {});

  // The loss of a generation pass, a scalar in fp64. `recompute`: layers of this pass are computed
  // twice. Those of recognition passes never are: one backward goes through several of them, and a
  // parameter's gradient must be complete when it is sent.
  at::Tensor Run(const data::RowPass& pass, bool recompute = false);
  // Backward of the recognition passes, from the gradient that the losses left at the logits: as a
  // part that is still to run, or at once.
  BackwardPart Recognition(bool last);
  void FinishBackward();

  // The figures, after all passes of the units have run, in one copy from the device.
  static UnitFigures ReadFigures(std::span<const LatentUnit> units);

 private:
  // Values of a generation pass, still on the model's device, and whose they are.
  struct PassValues {
    at::Tensor likelihood, bow;                 // scalars; `bow` undefined: none
    at::Tensor nll_Q;                           // sum of -log p over the response below its latent, nats
    at::Tensor share_Q;                         // q of that latent; undefined: 1
    std::vector<std::int64_t> row_Q, latent_Q;  // row of logits_RK_, and latent from 0
    std::vector<std::int64_t> tokens_Q;         // of the response
  };
  LatentSums Sums(const std::vector<double>& q_RK, const std::vector<std::vector<double>>& nll_RK) const;
  // The row of logits_RK_ of a sequence's response.
  std::int64_t RowOf(const data::RowPass::SequenceRef& ref) const;

  const Decoder& model_;
  std::span<const data::LabelledGroup> groups_;
  const double scale_;
  const LatentSettings settings_;
  const std::optional<std::uint64_t> dropout_key_;
  std::vector<std::vector<std::int64_t>> row_of_;  // [group][response]; -1: of another unit
  std::vector<data::RowPass::SequenceRef> responses_;
  at::Tensor recognised_RK_;  // with the graph of recognition
  at::Tensor logits_RK_;      // its values: a leaf, where generation adds its gradient
  at::Tensor noise_RK_;       // gumbel_soft
  std::vector<PassValues> passes_;
};

// The units of a step, one after the other: of each unit every generation pass, then recognition.
// In place of sequences' log-probabilities, AddTo gives one number, the sum of their expectations.
std::unique_ptr<PassLosses> MakeLatentLosses(const LossContext& context);

}  // namespace plural::trainer
