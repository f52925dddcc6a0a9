#include "trainer/run/train_step.h"

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "data/random.h"
#include "dist/agreement.h"
#include "dist/ordered.h"
#include "trainer/base/error.h"
#include "trainer/method/pass_losses.h"
#include "trainer/ops/part_scope.h"
#include "trainer/state/replicas.h"
#include "trainer/state/sharded_state.h"

namespace plural::trainer {
namespace {

bool HasNegatives(const data::LabelledGroup& group) {
  return std::any_of(group.sequences.begin(), group.sequences.end(),
                     [](const data::LabelledSequence& sequence) { return !sequence.positive; });
}

std::string GroupList(const StepBatch& batch) {
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

TrainStep::TrainStep(const Settings& settings, const Schedule& schedule, ActivationBudget& budget,
                     const Decoder& model, TrainState& state, const dist::World& world,
                     dist::Collectives& collectives)
    : settings_(settings),
      schedule_(schedule),
      budget_(budget),
      model_(model),
      state_(state),
      world_(world),
      collectives_(collectives) {
  if (settings.on_spike == SpikeAction::kOff) {  // a window that nobody keeps would be out of date
    state.spikes.losses.clear();
    state.spikes.grad_norms.clear();
  }
  if (settings.canonical) {
    ordered_.emplace(state.parameters, world, collectives);
  } else if (state.shards) {
    sync_.emplace(state.parameters, collectives, *state.shards);
  } else {
    sync_.emplace(state.parameters, collectives, settings.bucket_bytes);
  }
}

StepFigures TrainStep::Take(const StepBatch& batch, bool stop_requested) {
  state_.parameters.ZeroGradients();
  begun_anew_ = 0;
  const auto start = std::chrono::steady_clock::now();
  std::vector<Sums> sums;
  if (ordered_) {
    sums = ForwardBackwardApart(batch);
  } else {
    sums.push_back(ForwardBackward(batch, batch.groups, batch.passes, /*last=*/true));
  }
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  StepFigures figures = Reduce(sums, batch, stop_requested, seconds);

  const PartScope optimizer(Part::kOptimizer);
  // The sum in the groups' order is whole on every rank.
  figures.grad_norm = state_.shards && !ordered_ && collectives_.ScattersSums()
                          ? GradientNorm(state_.parameters, *state_.shards, collectives_)
                          : GradientNorm(state_.parameters);
  if (!std::isfinite(figures.grad_norm)) {
    FailTogether(world_, collectives_,
                 ExitError(ExitCode::kDiverged, "step " + std::to_string(batch.step + 1) +
                                                    ": the gradient's norm is not finite although every loss "
                                                    "is; groups of rank 0: " +
                                                    GroupList(batch) + kDivergedHint));
  }
  figures.lr = schedule_.LearningRate(batch.step);
  Judge(figures);
  if (figures.gives_up) return figures;
  if (figures.updated) {
    state_.optimizer.Step(state_.parameters, figures.lr, ClipScale(figures.grad_norm, settings_.clip_norm));
    if (state_.shards) state_.shards->AllGather(state_.parameters.Values(), collectives_);
  }
  if (!figures.updated) {
    SkipStep(state_.spikes);
  } else if (settings_.on_spike != SpikeAction::kOff) {
    AcceptStep(state_.spikes, settings_.spikes, figures.loss, figures.grad_norm);
  }
  ++state_.position.step;
  state_.position.consumed_groups += static_cast<std::int64_t>(figures.sums["groups"]);
  AddStep(*settings_.method, figures.sums, state_.position.epoch_sums);
  return figures;
}

void TrainStep::Judge(StepFigures& figures) const {
  if (settings_.on_spike == SpikeAction::kOff) return;
  figures.spike = FindSpike(state_.spikes, settings_.spikes, figures.loss, figures.grad_norm);
  if (!figures.spike || settings_.on_spike == SpikeAction::kWarn) return;
  figures.updated = false;
  figures.gives_up =
      settings_.on_spike == SpikeAction::kStop || state_.spikes.skipped_in_row >= kMostSkippedInRow;
}

std::vector<Sums> TrainStep::ForwardBackwardApart(const StepBatch& batch) {
  std::vector<Sums> sums;
  std::size_t first_pass = 0;
  for (std::size_t i = 0; i < batch.groups.size(); ++i) {
    const auto& [index, passes] = batch.apart.at(i);
    sums.push_back(ForwardBackward(batch, std::span(batch.groups).subspan(i, 1),
                                   std::span(batch.passes).subspan(first_pass, passes), /*last=*/false));
    ordered_->Take(index);
    first_pass += passes;
  }
  return sums;
}

Sums TrainStep::ForwardBackward(const StepBatch& batch, std::span<const data::LabelledGroup> groups,
                                std::span<const data::RowPass> passes, bool last) {
  for (;;) {
    try {
      return ForwardBackwardOnce(batch, groups, passes, last);
    } catch (const c10::OutOfMemoryError&) {
      if ((sync_ && !sync_->Disarm()) || !budget_.LowerFor(passes)) throw;
    }
    // Behind the exception, which may hold what is to be freed. There are no gradients but of these passes.
    state_.parameters.ZeroGradients();
    ++begun_anew_;
  }
}

Sums TrainStep::ForwardBackwardOnce(const StepBatch& batch, std::span<const data::LabelledGroup> groups,
                                    std::span<const data::RowPass> passes, bool last) {
  Sums sums = StepSums(*settings_.method, settings_.values);
  MethodSettings values = settings_.values;
  values.unlikelihood_scale = state_.validation.unlikelihood_scale;
  LossContext context{.model = model_,
                      .method = *settings_.method,
                      .settings = values,
                      .passes = passes,
                      .groups = groups,
                      .scale = 1.0 / static_cast<double>(batch.groups_in_step)};
  if (settings_.dropout_seed) {
    context.dropout_key = data::MixKey(*settings_.dropout_seed, data::Purpose::kDropout,
                                       static_cast<std::uint64_t>(batch.step));
  }
  for (const data::RowPass& pass : passes) {
    const bool recompute = budget_.Recomputes(pass);
    context.recompute.push_back(recompute);
    sums["recomputed_passes"] += recompute ? 1.0 : 0.0;
    sums["rows"] += static_cast<double>(pass.rows);
  }

  const std::unique_ptr<PassLosses> losses = MakePassLosses(context);
  while (const std::optional<BackwardPart> part = losses->Next()) {
    if (last && part->last) sync_->ArmLastBackward();
    part->Backward();
    if (batch.step + 1 == settings_.out_of_memory_step && !std::exchange(ran_out_, true)) {
      throw c10::OutOfMemoryError({__func__, __FILE__, static_cast<std::uint32_t>(__LINE__)},
                                  "a fault on purpose (PLURAL_FAULT)");
    }
  }
  std::vector<std::vector<double>> log_p;
  losses->AddTo(sums, log_p);
  for (const data::LabelledGroup& group : groups) {
    sums["groups"] += 1.0;
    sums["sequence_tokens"] += static_cast<double>(group.sequence_tokens);
    if (group.penalised_tokens == 0 && HasNegatives(group)) sums["unpenalised_groups"] += 1.0;
  }
  return sums;
}

Sums TrainStep::InOrder(const std::vector<Sums>& sums, const StepBatch& batch) {
  std::vector<double> mine;
  for (std::size_t i = 0; i < sums.size(); ++i) {
    mine.push_back(static_cast<double>(batch.apart[i].index));
    mine.insert(mine.end(), sums[i].Values().begin(), sums[i].Values().end());
  }
  std::map<double, std::vector<double>> in_order;
  Sums all = StepSums(*settings_.method, settings_.values);
  const std::size_t size = all.Values().size();
  for (const std::string& bytes : collectives_.AllGather(dist::BytesOf(mine))) {
    const std::vector<double> numbers = dist::NumbersIn(bytes);
    for (auto at = numbers.begin(); at != numbers.end(); at += static_cast<std::ptrdiff_t>(1 + size)) {
      in_order[*at].assign(at + 1, at + 1 + static_cast<std::ptrdiff_t>(size));
    }
  }
  for (const auto& [index, values] : in_order) {
    std::transform(values.begin(), values.end(), all.Values().begin(), all.Values().begin(), std::plus<>());
  }
  return all;
}

StepFigures TrainStep::Reduce(const std::vector<Sums>& sums, const StepBatch& batch, bool stop_requested,
                              double seconds) {
  const PartScope waiting(Part::kWaiting);
  world_.GetPulse().Enter(dist::Phase::kSum, batch.step + 1);
  if (ordered_) {
    ordered_->Finish(batch.groups_in_step);
  } else {
    sync_->Finish();
  }
  const bool finite = std::all_of(sums.begin(), sums.end(), [&](const Sums& some) {
    return std::isfinite(LossOf(*settings_.method, some));
  });
  // Lowest bad rank, as a maximum: 0 when all are well. Behind the flags each rank has a place for its time.
  const auto ranks = static_cast<std::size_t>(world_.Size());
  std::vector<double> flags(2 + ranks);
  flags[0] = finite ? 0.0 : static_cast<double>(world_.Size() - world_.Rank());
  flags[1] = stop_requested ? 1.0 : 0.0;
  flags[2 + static_cast<std::size_t>(world_.Rank())] = seconds;
  // Every rank takes the others' elements from them after the update: what differs now would be overwritten,
  // or come to all, and no checkpoint would show it.
  if (state_.shards) {
    const std::uint64_t sum = SumOfWords(state_.parameters.Values());
    for (const auto half : {static_cast<double>(sum >> 32), static_cast<double>(sum & 0xFFFFFFFFU)}) {
      flags.push_back(half);
      flags.push_back(-half);
    }
  }
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
  if (state_.shards && (flags[2 + ranks] != -flags[3 + ranks] || flags[4 + ranks] != -flags[5 + ranks])) {
    RequireSameReplicas(state_, world_, collectives_);
  }

  Sums all;
  if (ordered_) {
    all = InOrder(sums, batch);
  } else {
    all = sums.front();
    collectives_.AllReduceSum(all.Values());
  }
  return {.sums = all,
          .loss = LossOf(*settings_.method, all),
          .grad_norm = 0.0,
          .lr = 0.0,
          .stop_requested = flags[1] > 0.0,
          .rank_seconds = {flags.begin() + 2, flags.begin() + 2 + static_cast<std::ptrdiff_t>(ranks)},
          .begun_anew = begun_anew_};
}

}  // namespace plural::trainer
