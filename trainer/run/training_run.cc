#include "trainer/run/training_run.h"

#include <algorithm>
#include <chrono>
#include <ctime>
#include <iostream>
#include <string>
#include <utility>

#include "data/batch_plan.h"
#include "dist/agreement.h"
#include "trainer/base/readable.h"
#include "trainer/base/version.h"
#include "trainer/files/hf_folder.h"
#include "trainer/ops/part_scope.h"
#include "trainer/plan/process_memory.h"
#include "trainer/plan/step_plan.h"
#include "trainer/run/metrics_check.h"
#include "trainer/run/self_consistency.h"
#include "trainer/run/train_lines.h"
#include "trainer/run/train_setup.h"
#include "trainer/run/trained_record.h"
#include "trainer/state/replicas.h"

namespace plural::trainer {
namespace {

using Clock = std::chrono::steady_clock;

// Enough for a share that tells latents that answers depend on from others, and seconds beside a run.
constexpr std::int64_t kLatentPrompts = 8;
constexpr std::int64_t kLatentResponseTokens = 64;

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// What stands before the text of the corpus's prompts; chat templates write it themselves.
std::vector<std::int64_t> BeginTokens(data::Corpus& corpus, const ModelConfig& config) {
  if (corpus.Info().source_format == "chat" || corpus.Info().groups == 0) return {};
  const std::vector<data::Token> prompt = corpus.Read(0).prompt_tokens;
  if (prompt.empty() || prompt.front() != config.bos_token_id) return {};
  return {config.bos_token_id};
}

}  // namespace

TrainingRun::TrainingRun(const Recipe& recipe, const ModelConfig& config, data::Corpus corpus,
                         std::optional<Validation> validation, Decoder& model, TrainState& state,
                         const dist::World& world, dist::Collectives& collectives, const StopSignal& stop,
                         RunLog& log, dist::Watchdog& watchdog)
    : recipe_(recipe),
      paths_(recipe),
      model_folder_(ModelFolder(recipe)),
      model_(model),
      state_(state),
      world_(world),
      collectives_(collectives),
      stop_(stop),
      log_(log),
      watchdog_(watchdog),
      fault_(world.Rank()),
      groups_(corpus.Info().groups),
      steps_per_epoch_(data::BatchPlan(groups_, PlanSettings(recipe)).StepsPerEpoch()),
      first_step_(state.position.step),
      last_step_(TotalSteps(recipe, groups_)),
      begins_elsewhere_(first_step_ > 0 && state.position.metrics_bytes == 0),
      checkpoints_(recipe, first_step_ > 0 && !begins_elsewhere_ ? first_step_ : -1, state, world,
                   collectives, log),
      validation_(std::move(validation)),
      method_settings_(recipe.SettingsOfMethod()),
      pack_(LoaderSettings(recipe, config, model.Device(), world).pack),
      progress_("train", "steps", last_step_, Lead(), first_step_),
      profile_({.enabled = recipe.profile.enabled,
                .after = recipe.profile.after,
                .steps = recipe.profile.steps,
                .folder = paths_.Profiles()},
               model, world, collectives) {
  training_ = {.method = std::string(recipe.method->name),
               .possibilities = recipe.method->numbers ? recipe.group.possibilities : 0,
               .latents = model.LatentHeads() != nullptr ? model.LatentHeads()->Count() : 0,
               .begin_tokens = BeginTokens(corpus, config),
               .source_format = corpus.Info().source_format,
               .template_json = corpus.Info().template_json,
               .tokenizer_name = corpus.Info().tokenizer_name,
               .tokenizer_sha256 = corpus.Info().tokenizer_sha256};
  if (Lead()) OpenMetrics();
  if (recipe.method->latents) {
    for (std::int64_t g = 0; g < std::min(groups_, kLatentPrompts); ++g) {
      latent_prompts_.push_back(corpus.Read(g));
    }
  }
  Loader::Settings settings = LoaderSettings(recipe, config, model.Device(), world);
  settings.first_step = first_step_;
  settings.last_step = Over() ? first_step_ : last_step_;
  loader_.emplace(std::move(corpus), settings);
}

// What is in the file is told and not needed: its lines are not made again, and the run goes on without them.
void TrainingRun::OpenMetrics() {
  const std::int64_t committed = state_.position.metrics_bytes;
  const MetricsLeft left =
      LeftOfMetrics(paths_.Metrics(), committed, first_step_, recipe_.train.log_every_steps);
  metrics_.emplace(paths_.Metrics(), left.bytes);
  lost_after_step_ = left.lost_after_step;
  if (!lost_after_step_) return;
  log_.Warn(paths_.Metrics().string() + ": has been cut or removed: lines behind step " +
            std::to_string(*lost_after_step_) + " up to step " + std::to_string(first_step_) + ", " +
            std::to_string(committed - left.bytes) + " of the " + std::to_string(committed) +
            " bytes that the checkpoint has seen, are gone and stay so; the run goes on from the checkpoint");
}

ExitCode TrainingRun::ToTheEnd() {
  LogStart();
  const Schedule schedule{.kind = recipe_.optimizer.schedule,
                          .lr = recipe_.optimizer.lr,
                          .warmup_steps = WarmupSteps(recipe_, groups_),
                          .total_steps = last_step_,
                          .min_lr_rate = recipe_.optimizer.min_lr_rate};
  ActivationBudget budget(recipe_.train.activation_checkpointing, recipe_.train.activation_bytes, model_,
                          world_);
  const bool drops = recipe_.adapter.lora && recipe_.adapter.settings.dropout > 0.0;
  TrainStep step({.method = recipe_.method,
                  .values = method_settings_,
                  .dropout_seed = drops ? std::optional(recipe_.seed) : std::nullopt,
                  .clip_norm = recipe_.optimizer.clip_norm,
                  .bucket_bytes = recipe_.train.bucket_bytes,
                  .canonical = recipe_.train.canonical,
                  .on_spike = recipe_.guard.spike,
                  .spikes = {recipe_.guard.window_steps, recipe_.guard.factor},
                  .out_of_memory_step = fault_.OutOfMemoryStep()},
                 schedule, budget, model_, state_, world_, collectives_);
  if (state_.position.validation_owed) {
    state_.position.validation_owed = false;
    Validate();
    // The end that a collapse kept from coming, unless it does so again.
    if (Over() && checkpoints_.Saved()) MeasureLatents();
  }
  while (!Over()) {
    profile_.BeforeStep();
    const auto start = Clock::now();
    StepBatch batch;
    double data_wait_seconds = 0.0;
    const StepFigures figures = TakeStep(step, batch, data_wait_seconds);
    if (figures.begun_anew > 0) {
      log_.Warn("rank " + std::to_string(world_.Rank()) + " ran out of memory in step " +
                std::to_string(batch.step + 1) +
                " and began it anew; from here on passes of that size compute their layers twice, with the "
                "same numbers (train.activation_bytes)");
    }
    if (figures.gives_up) StopBeforeSpike(figures);
    LogStep(figures, batch.epoch, SecondsSince(start), data_wait_seconds);
    profile_.AfterStep(batch);
    if (state_.position.step % steps_per_epoch_ == 0) EndEpoch();
    if (Over()) break;
    const auto due = [&](std::int64_t every) { return every > 0 && state_.position.step % every == 0; };
    if (world_.Size() > 1 && due(recipe_.guard.replicas_every_steps)) checkpoints_.SameReplicas();
    if (due(recipe_.validation.every_steps)) {
      // Who asks for a stop may not wait for it: the next start measures first.
      if (figures.stop_requested) {
        state_.position.validation_owed = validation_.has_value();
      } else {
        Validate();
      }
    }
    if (figures.stop_requested) {
      checkpoints_.SaveNow(metrics_);
      log_.Info("stopped on request after step " + std::to_string(state_.position.step));
      ShowProfile();
      progress_.Say("stopped on request: step " + std::to_string(state_.position.step) + " of " +
                    std::to_string(last_step_) + " is saved; start again to go on");
      return ExitCode::kStopped;
    }
    if (due(recipe_.checkpoint.every_steps) || ValidatedBest()) {
      checkpoints_.Save(/*commits=*/!recipe_.CopiesCheckpoints(), metrics_);
    }
  }
  if (validated_step_ != state_.position.step) Validate();
  if (!checkpoints_.Saved()) {
    MeasureLatents();
    checkpoints_.FinishMirror(kStopPatienceSeconds);  // so that this one gets its copy
    checkpoints_.Save(/*commits=*/true, metrics_);
  }
  RequireFinite(state_, world_, collectives_);  // also a checkpoint's of an earlier version
  WriteResult();
  checkpoints_.FinishMirror(kEndPatienceSeconds);
  ShowProfile();
  return ExitCode::kDone;
}

StepFigures TrainingRun::TakeStep(TrainStep& step, StepBatch& batch, double& data_wait_seconds) {
  const PartScope whole(Part::kStep);
  const auto start = Clock::now();
  Enter(dist::Phase::kData, state_.position.step + 1);
  {
    const PartScope data(Part::kData);
    batch = loader_->Next();
  }
  data_wait_seconds = SecondsSince(start);
  Enter(dist::Phase::kCompute, state_.position.step + 1);
  fault_.Before(state_.position.step + 1, state_.parameters);
  StepFigures figures = step.Take(batch, stop_.Requested());
  watchdog_.StepTook(SecondsSince(start));  // with the wait for the others, whose work on a GPU it shows
  return figures;
}

// COLLECTIVE.
void TrainingRun::ShowProfile() {
  profile_.Finish();
  if (!profile_.Report().empty()) progress_.Say(profile_.Report());
}

void TrainingRun::LogStart() {
  const bool resumed = first_step_ > 0;
  log_.Info((resumed ? "resume after step " + std::to_string(first_step_) : std::string("start")) +
            ", rank " + std::to_string(world_.Rank()) + " of " + std::to_string(world_.Size()) + " on " +
            world_.Host());
  if (!Lead()) return;
  MetricsLine line;
  line["event"] = resumed ? "resume" : "start";
  line["step"] = first_step_;
  if (begins_elsewhere_) line["resumed_from"] = recipe_.resume;
  if (lost_after_step_) line[kLostLines] = *lost_after_step_;
  line["last_step"] = last_step_;
  line["steps_per_epoch"] = steps_per_epoch_;
  line["log_every_steps"] = recipe_.train.log_every_steps;
  line["groups"] = groups_;
  std::int64_t trained = 0;
  for (const auto& span : state_.parameters.Spans()) trained += span.size;
  line["trained_parameters"] = trained;
  line["ranks"] = state_.provenance.ranks;
  line["threads_per_rank"] = state_.provenance.threads;
  line["version"] = state_.provenance.version;
  line["restarts"] = state_.provenance.restarts;
  line["time_unix_seconds"] = static_cast<std::int64_t>(std::time(nullptr));
  metrics_->Write(line);
  progress_.Say("run " + paths_.root.string() + ": " + (resumed ? "resumed after step " : "steps ") +
                (resumed ? std::to_string(first_step_) + " of " : "1 to ") + std::to_string(last_step_) +
                ", " + Counted(groups_, "group") + ", " + Counted(trained, "trained parameter") + ", " +
                Counted(world_.Size(), "rank"));
}

void TrainingRun::LogStep(const StepFigures& figures, std::int64_t epoch, double seconds,
                          double data_wait_seconds) {
  if (!Lead()) return;
  checkpoints_.NoteCommitted();
  const std::int64_t step = state_.position.step;
  if (step % recipe_.train.log_every_steps == 0 || Over()) {
    metrics_->Write(StepLine(*recipe_.method, method_settings_, figures,
                             {.step = step,
                              .epoch = epoch,
                              .seconds = seconds,
                              .data_wait_seconds = data_wait_seconds,
                              .host_memory_bytes = ResidentBytes()}));
  }
  if (figures.spike) {
    const std::vector<std::int64_t> groups = GroupsOf(step);
    metrics_->Write(SpikeLine(step, figures, groups));
    log_.Warn(SpikeText(step, figures, groups) +
              (figures.updated ? "; it was made" : "; it was left out (guard.spike)"));
  }
  groups_shown_ += static_cast<std::int64_t>(figures.sums["groups"]);
  step_seconds_ += seconds;
  progress_.Update(step, "loss " + FourDigits(figures.loss) + "  " +
                             FourDigits(static_cast<double>(groups_shown_) / step_seconds_) +
                             " groups/s  lr " + FourDigits(figures.lr));
}

std::vector<std::int64_t> TrainingRun::GroupsOf(std::int64_t step) const {
  return data::BatchPlan(groups_, PlanSettings(recipe_)).StepGroups(step - 1);
}

// Every group has been seen once more.
void TrainingRun::EndEpoch() {
  Position& position = state_.position;
  Sums& sums = position.epoch_sums;
  if (recipe_.method->target_sets && recipe_.early_stop.enabled) {
    // docs/methods.md 3.5: sums over all prompts, so that a prompt with many targets counts for more.
    position.stopped_early =
        sums["cross_entropy_nats"] <= (1.0 + recipe_.early_stop.gamma) * sums["target_entropy_nats"];
  }
  if (Lead()) {
    metrics_->Write(EpochLine(*recipe_.method, method_settings_, position));
    if (position.stopped_early) {
      progress_.Say("stopped early after pass " + std::to_string(position.epoch + 1) +
                    ": the loss is within early_stop.gamma of its minimum");
    }
  }
  sums.Clear();
  ++position.epoch;
}

// COLLECTIVE.
void TrainingRun::MeasureLatents() {
  if (latent_prompts_.empty()) return;
  Enter(dist::Phase::kValidation, state_.position.step);
  const SelfConsistency found =
      MeasureSelfConsistency(model_, latent_prompts_, kLatentResponseTokens, pack_, world_, collectives_);
  if (!Lead()) return;
  MetricsLine line;
  line["event"] = "latents";
  line["step"] = state_.position.step;
  line["prompts"] = latent_prompts_.size();
  line["responses"] = found.responses;
  line["self_consistency"] = MetricsNumber(found.Share());
  metrics_->Write(line);
}

bool TrainingRun::ValidatedBest() const {
  const auto best = state_.validation.best.find(recipe_.checkpoint.keep_best);
  return best != state_.validation.best.end() && best->second.step == state_.position.step;
}

void TrainingRun::WriteResult() {
  Enter(dist::Phase::kCheckpoint, state_.position.step);
  if (Lead()) {
    MetricsLine line;
    line["event"] = "end";
    line["step"] = state_.position.step;
    line["epoch"] = state_.position.epoch;
    line["groups"] = state_.position.consumed_groups;
    line["stopped_early"] = state_.position.stopped_early;
    line["seconds"] = progress_.Seconds();
    line["peak_host_memory_bytes"] = PeakResidentBytes();
    metrics_->Write(line);
    metrics_->Sync();
    training_.trained_json = TrainedRecord(recipe_, state_, paths_.Metrics(), LicenseOf(model_folder_));
    // Last of all: the folder's presence says that the run is finished.
    const std::vector<std::int64_t>& ends = model_.Config().eos_token_ids;
    if (recipe_.adapter.lora) {
      const std::string& base = recipe_.model.path;
      SaveAdapter(model_, paths_.Result(), base,
                  CardFiles(training_, base.empty() ? "BASE_MODEL" : base, ends), model_folder_);
    } else {
      SaveModel(model_, paths_.Result(), model_folder_, CardFiles(training_, "", ends));
    }
    progress_.Say("finished: " + Counted(state_.position.step, "step") + ", " +
                  Counted(state_.position.consumed_groups, "group") + "; result in " +
                  paths_.Result().string());
  }
  collectives_.Barrier();
  log_.Info("finished after step " + std::to_string(state_.position.step));
}

}  // namespace plural::trainer
