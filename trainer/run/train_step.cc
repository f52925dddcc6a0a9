#include "trainer/run/train_step.h"

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "data/random.h"
#include "dist/agreement.h"
#include "trainer/base/error.h"
#include "trainer/method/cvf.h"
#include "trainer/method/objective.h"
#include "trainer/ops/part_scope.h"

namespace plural::trainer {
namespace {

bool HasNegatives(const data::LabelledGroup& group) {
  return std::any_of(group.sequences.begin(), group.sequences.end(),
                     [](const data::LabelledSequence& sequence) { return !sequence.positive; });
}

std::string GroupList(const data::StepBatch& batch) {
  std::string text;
  for (const auto& group : batch.groups) text += (text.empty() ? "" : ", ") + std::to_string(group.group);
  return text.empty() ? "none" : text;
}

// What is wrong with one rank's numbers is only known there: it reports, the others wait.
constexpr const char* kDivergedHint =
    "; nothing was updated and the last checkpoint is untouched. Lower optimizer.lr, set "
    "optimizer.clip_norm, "
    "or look at these groups";

}  // namespace

struct TrainStep::Local {
  double likelihood = 0.0, unlikelihood = 0.0, bow = 0.0;  // this rank's part of the step's mean
  std::int64_t rows = 0, sequence_tokens = 0, recomputed_passes = 0;
  PassSums groups;  // `loss` is left to Reduce
};

TrainStep::TrainStep(const Recipe& recipe, const Schedule& schedule, const Decoder& model, TrainState& state,
                     const dist::World& world, dist::Collectives& collectives)
    : recipe_(recipe),
      schedule_(schedule),
      model_(model),
      state_(state),
      world_(world),
      collectives_(collectives),
      sync_(state.parameters, collectives, recipe.train.bucket_bytes),
      budget_(recipe, model, world) {}

StepFigures TrainStep::Take(const data::StepBatch& batch, bool stop_requested) {
  state_.parameters.ZeroGradients();
  const Local local = ForwardBackward(batch);
  StepFigures figures = Reduce(local, batch, stop_requested);

  const PartScope optimizer(Part::kOptimizer);
  figures.grad_norm = GradientNorm(state_.parameters);
  if (!std::isfinite(figures.grad_norm)) {
    FailTogether(world_, collectives_,
                 ExitError(ExitCode::kDiverged, "step " + std::to_string(batch.step + 1) +
                                                    ": the gradient's norm is not finite although every loss "
                                                    "is; groups of rank 0: " +
                                                    GroupList(batch) + kDivergedHint));
  }
  figures.lr = schedule_.LearningRate(batch.step);
  state_.optimizer.Step(state_.parameters, figures.lr,
                        ClipScale(figures.grad_norm, recipe_.optimizer.clip_norm));
  Advance(figures);
  return figures;
}

TrainStep::Local TrainStep::ForwardBackward(const data::StepBatch& batch) {
  const bool matching = recipe_.method == data::Method::kDistributionMatching;
  ObjectiveSettings settings;
  settings.unlikelihood_clamp = recipe_.loss.unlikelihood_clamp;
  settings.weighted_edges_only = !matching;
  if (recipe_.adapter.lora && recipe_.adapter.settings.dropout > 0.0) {
    settings.dropout_key =
        data::MixKey(recipe_.seed, data::Purpose::kDropout, static_cast<std::uint64_t>(batch.step));
  }

  Local local;
  if (recipe_.method == data::Method::kCvf) {
    ForwardBackwardLatent(batch, settings.dropout_key, local);
    return local;
  }
  std::vector<PassValues> values;
  for (const data::RowPass& pass : batch.passes) {
    settings.recompute = budget_.Recomputes(pass);
    local.recomputed_passes += settings.recompute ? 1 : 0;
    const PassResult result = RunPass(model_, pass, settings);
    if (&pass == &batch.passes.back()) sync_.ArmLastBackward();
    result.loss.backward();
    values.push_back(result.values);
    local.rows += pass.rows;
  }

  std::vector<std::vector<double>> log_p(batch.groups.size());  // of each group's sequences
  for (std::size_t g = 0; g < batch.groups.size(); ++g) log_p[g].resize(batch.groups[g].sequences.size());
  const std::vector<PassFigures> figures = ReadFigures(batch.passes, values);
  for (std::size_t i = 0; i < figures.size(); ++i) {
    local.likelihood += figures[i].likelihood;
    local.unlikelihood += figures[i].unlikelihood;
    for (std::size_t s = 0; s < figures[i].sequence_log_p.size(); ++s) {
      const auto& ref = batch.passes[i].sequences[s];
      log_p[static_cast<std::size_t>(ref.group)][static_cast<std::size_t>(ref.sequence)] =
          figures[i].sequence_log_p[s];
    }
  }

  for (std::size_t g = 0; g < batch.groups.size(); ++g) {
    const data::LabelledGroup& group = batch.groups[g];
    ++local.groups.groups;
    local.sequence_tokens += group.sequence_tokens;
    if (group.penalised_tokens == 0 && HasNegatives(group)) ++local.groups.unpenalised_groups;
    if (!matching) continue;
    const TargetFigures targets = FiguresOfTargets(group, log_p[g]);
    local.groups.kl_nats += targets.kl_nats;
    local.groups.cross_entropy_nats += targets.cross_entropy_nats;
    local.groups.target_entropy_nats += targets.target_entropy_nats;
    local.groups.target_mass += targets.target_mass;
    local.groups.entropy_nats += targets.entropy_nats;
  }
  return local;
}

// Each generation pass is trained on as it comes; what it says about the latents goes through recognition
// last.
void TrainStep::ForwardBackwardLatent(const data::StepBatch& batch, std::optional<std::uint64_t> dropout_key,
                                      Local& local) {
  const LatentSettings settings{.estimator = recipe_.cvf.estimator,
                                .temperature = recipe_.cvf.temperature,
                                .bow_weight = recipe_.cvf.bow_weight,
                                .dropout_key = dropout_key};
  const double scale = 1.0 / static_cast<double>(batch.groups_in_step);
  const std::vector<LatentUnitPasses> unit_passes = LatentUnitsOf(batch.passes);
  std::vector<LatentUnit> units;
  for (const LatentUnitPasses& passes : unit_passes) {
    LatentUnit& unit = units.emplace_back(model_, passes.recognition, batch.groups, scale, settings);
    for (const data::RowPass& pass : passes.generation) {
      const bool recompute = budget_.Recomputes(pass);
      local.recomputed_passes += recompute ? 1 : 0;
      unit.Run(pass, {}, recompute).backward();
    }
    if (&passes == &unit_passes.back()) sync_.ArmLastBackward();
    unit.FinishBackward();
  }
  const UnitFigures figures = LatentUnit::ReadFigures(units);
  local.likelihood = figures.likelihood;
  local.bow = figures.bow;
  local.groups.latents = figures.sums;
  for (const data::RowPass& pass : batch.passes) local.rows += pass.rows;
  for (const data::LabelledGroup& group : batch.groups) {
    ++local.groups.groups;
    local.sequence_tokens += group.sequence_tokens;
  }
}

StepFigures TrainStep::Reduce(const Local& local, const data::StepBatch& batch, bool stop_requested) {
  const PartScope waiting(Part::kWaiting);
  sync_.Finish();
  const bool finite = std::isfinite(local.likelihood + local.unlikelihood + local.bow);
  // Lowest bad rank, as a maximum: 0 when all are well.
  double flags[] = {finite ? 0.0 : static_cast<double>(world_.Size() - world_.Rank()),
                    stop_requested ? 1.0 : 0.0};
  collectives_.AllReduceMax(flags);
  if (flags[0] > 0.0) {
    const int bad_rank = world_.Size() - static_cast<int>(flags[0]);
    FailTogether(
        world_, collectives_,
        ExitError(ExitCode::kDiverged, "step " + std::to_string(batch.step + 1) + ": the loss of rank " +
                                           std::to_string(bad_rank) +
                                           " is not finite; its groups: " + GroupList(batch) + kDivergedHint),
        bad_rank);
  }

  double sums[] = {local.likelihood,
                   local.unlikelihood,
                   local.bow,
                   static_cast<double>(local.rows),
                   static_cast<double>(local.sequence_tokens),
                   static_cast<double>(local.groups.groups),
                   static_cast<double>(local.groups.unpenalised_groups),
                   local.groups.kl_nats,
                   local.groups.cross_entropy_nats,
                   local.groups.target_entropy_nats,
                   local.groups.target_mass,
                   local.groups.entropy_nats,
                   static_cast<double>(local.recomputed_passes)};
  collectives_.AllReduceSum(sums);
  StepFigures figures;
  figures.likelihood = sums[0];
  figures.unlikelihood = sums[1];
  figures.bow = sums[2];
  figures.loss = sums[0] + sums[1] + sums[2];
  figures.rows = static_cast<std::int64_t>(sums[3]);
  figures.sequence_tokens = static_cast<std::int64_t>(sums[4]);
  figures.groups.groups = static_cast<std::int64_t>(sums[5]);
  figures.groups.unpenalised_groups = static_cast<std::int64_t>(sums[6]);
  figures.groups.loss = figures.loss * sums[5];
  figures.groups.kl_nats = sums[7];
  figures.groups.cross_entropy_nats = sums[8];
  figures.groups.target_entropy_nats = sums[9];
  figures.groups.target_mass = sums[10];
  figures.groups.entropy_nats = sums[11];
  figures.recomputed_passes = static_cast<std::int64_t>(sums[12]);
  if (recipe_.method == data::Method::kCvf) {
    std::vector<double> latents = local.groups.latents.Packed(recipe_.cvf.latents);
    collectives_.AllReduceSum(latents);
    figures.groups.latents = LatentSums::Unpacked(latents);
    figures.groups.latents.bow = figures.bow * sums[5];
  }
  figures.stop_requested = flags[1] > 0.0;
  return figures;
}

void TrainStep::Advance(const StepFigures& figures) {
  Position& position = state_.position;
  ++position.step;
  position.consumed_groups += figures.groups.groups;
  PassSums& pass = position.pass;
  pass.groups += figures.groups.groups;
  pass.unpenalised_groups += figures.groups.unpenalised_groups;
  pass.loss += figures.groups.loss;
  pass.kl_nats += figures.groups.kl_nats;
  pass.cross_entropy_nats += figures.groups.cross_entropy_nats;
  pass.target_entropy_nats += figures.groups.target_entropy_nats;
  pass.target_mass += figures.groups.target_mass;
  pass.entropy_nats += figures.groups.entropy_nats;
  pass.latents.Add(figures.groups.latents);
}

}  // namespace plural::trainer
