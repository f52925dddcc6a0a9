#include "trainer/run/train.h"

#include <ATen/Parallel.h>

#include <exception>
#include <iostream>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "data/corpus.h"
#include "dist/agreement.h"
#include "trainer/base/version.h"
#include "trainer/files/load_model.h"
#include "trainer/files/serving_notes.h"
#include "trainer/kernels/dtypes.h"
#include "trainer/ops/cuda_kernels.h"
#include "trainer/run/device_check.h"
#include "trainer/run/identity.h"
#include "trainer/run/resume.h"
#include "trainer/run/run_folder.h"
#include "trainer/run/run_log.h"
#include "trainer/run/tracker.h"
#include "trainer/run/train_lines.h"
#include "trainer/run/train_setup.h"
#include "trainer/run/training_run.h"
#include "trainer/run/validation.h"
#include "trainer/state/checkpoint.h"
#include "trainer/state/train_state.h"

namespace plural::trainer {
namespace {

// Looks before anything heavy is loaded. True: nothing is left to do. COLLECTIVE.
bool IsFinished(const Recipe& recipe, const dist::World& world, dist::Collectives& collectives) {
  std::string answer = "no";
  OnEveryRank(world, collectives, [&] {
    const RunPaths paths(recipe);
    if (world.Rank() != 0) return;
    RequireStart(recipe);
    if (!std::filesystem::exists(paths.RecipeFile())) return;
    RequireSameRecipe(paths.RecipeFile(), recipe);
    const Checkpoints checkpoints(paths.Checkpoints(), recipe.checkpoint.keep);
    std::string damage;
    if (!HasResult(paths, damage)) {
      if (damage.empty()) return;
      if (!HasCheckpoint(recipe)) {
        throw ExitError(ExitCode::kBadData,
                        damage + "; no checkpoint is left to write it from: restore it, or remove " +
                            paths.root.string() + " to train from the start");
      }
      std::cerr << "plural: warning: the result is not whole, it will be written again: " << damage << "\n";
      return;
    }
    std::vector<std::string> gone;
    const auto saved = checkpoints.NewestIdentity();
    if (saved) RequireUnchangedInputs(recipe, IdentityOfInputs(recipe, gone), *saved);
    std::cout << "run " << paths.root.string() << " is finished: the result is in " << paths.Result().string()
              << "; give the run another name (name=...) to train again, and " << GoOnFrom(recipe)
              << " to train on from there\n";
    for (const std::string& key : gone) {
      std::cerr << "plural: warning: what " << key << " names is gone; it was not compared\n";
    }
    if (!saved) std::cerr << "plural: warning: no checkpoint says what the run was made with; not compared\n";
    answer = "yes";
  });
  collectives.Broadcast(answer, 0);
  return answer == "yes";
}

}  // namespace

ExitCode Train(const Recipe& recipe, at::Device device, const dist::World& world,
               dist::Collectives& collectives, const StopSignal& stop, dist::Watchdog& watchdog) {
  if (IsFinished(recipe, world, collectives)) return ExitCode::kDone;

  std::vector<std::string> warnings;
  if (device.is_cuda()) {
    const std::string missing = KernelWarning(collectives.AllGather(KernelsProblem()));
    if (!missing.empty()) warnings.push_back(missing);
  }
  Identity identity;
  const ModelConfig config = MakeOnEveryRank(world, collectives, [&] { return ConfigOf(recipe); });
  // The bytes themselves are compared over ranks: machines may have copies, and a copy's sidecar may be right
  // where the copy is not.
  std::string train_sha256, validation_sha256;
  const bool reads_train = ReadsForOthers(recipe.data.train, world, collectives);
  data::Corpus corpus = MakeOnEveryRank(world, collectives, [&] {
    data::CorpusLimits limits;
    limits.verify_sidecar = reads_train;
    limits.scan_tokens = world.Rank() == 0;
    data::Corpus opened = OpenCorpusOf(recipe, "data.train", recipe.data.train, limits);
    CheckTrainingCorpus(opened, recipe, config, warnings);
    if (reads_train && world.Size() > 1) train_sha256 = ContentSha256(opened);
    return opened;
  });
  const bool reads_validation = ReadsForOthers(recipe.data.validation, world, collectives);
  std::optional<Validation> validation;
  OnEveryRank(world, collectives, [&] {
    if (recipe.data.validation.empty()) {
      identity = IdentityOf(recipe, corpus, nullptr, world);
      return;
    }
    data::CorpusLimits limits;
    limits.verify_sidecar = reads_validation;
    limits.scan_tokens = world.Rank() == 0;
    data::Corpus opened = OpenCorpusOf(recipe, "data.validation", recipe.data.validation, limits);
    CheckValidationCorpus(opened, corpus, recipe, config, warnings);
    if (reads_validation && world.Size() > 1) validation_sha256 = ContentSha256(opened);
    identity = IdentityOf(recipe, corpus, &opened, world);
    validation.emplace(ValidationSettings(recipe, config, device), opened);
  });
  RequireEqual("the corpus (data.train)", train_sha256, world, collectives);
  RequireEqual("the validation corpus (data.validation)", validation_sha256, world, collectives);
  RequireEqual("config.json of the base model (model.path)", identity.config_sha256, world, collectives);
  RequireEqual("the base model (model.path)", identity.weights_sha256, world, collectives);
  RequireEqual("the adapter (adapter.init_from)", identity.adapter_sha256, world, collectives);
  OnEveryRank(world, collectives,
              [&] { RequireHeadDimension(config, DTypeNamed(recipe.model.dtype), device); });
  Decoder model = MakeOnEveryRank(world, collectives, [&] { return MakeBase(recipe, config, device); });
  model.AddEndTokens(corpus.Info().end_tokens);
  if (!recipe.model.path.empty()) {
    LoadBaseWeights(model, ModelFolder(recipe), world, collectives, FullLinearsFor(recipe.model.quantize));
  }
  OnEveryRank(world, collectives, [&] {
    CheckAttention(config, model.DType(), device);
    AddTrained(recipe, model);
  });

  // From here on the disk is written to.
  std::optional<RunFolder> folder;  // rank 0
  OnEveryRank(world, collectives, [&] {
    if (world.Rank() == 0) folder.emplace(recipe);
  });
  const RunPaths paths(recipe);
  RunLog log = MakeOnEveryRank(world, collectives,
                               [&] { return RunLog(paths.LogOf(world.Rank()), world.Rank() == 0); });
  watchdog.ReportIn(paths.Logs());
  try {
    if (recipe.train.groups_per_step < world.Size()) {
      warnings.push_back("train.groups_per_step is " + std::to_string(recipe.train.groups_per_step) + " on " +
                         std::to_string(world.Size()) +
                         " ranks: a group is never split, so some ranks have nothing to do in any step");
    }
    if (recipe.adapter.lora) {
      for (const auto& note : ServingNotes(config, recipe.adapter.settings)) warnings.push_back(note);
    }
    for (const auto& warning : warnings) log.Warn(warning);

    TrainState state(
        model.TrainableParameters(),
        {recipe.optimizer.beta1, recipe.optimizer.beta2, recipe.optimizer.eps, recipe.optimizer.weight_decay},
        LearningRateScales(recipe, model),
        recipe.ShardsOptimizer(world.Size())
            ? std::optional<dist::Shards::Settings>({world.Rank(), world.Size(), recipe.train.bucket_bytes})
            : std::nullopt);
    state.position.epoch_sums = EpochSums(*recipe.method, recipe.SettingsOfMethod());
    state.identity = identity;
    state.provenance = {.version = Version(),
                        .mpi = dist::World::LibraryVersion(),
                        .host = world.Host(),
                        .ranks = world.Size(),
                        .threads = at::get_num_threads()};
    RequireEqual("the hash of the initial parameters", ReplicaHash(state), world, collectives);
    Resume(state, recipe, world, collectives, log);
    state.parameters.CheckAliasing();

    TrainingRun run(recipe, config, std::move(corpus), std::move(validation), model, state, world,
                    collectives, stop, log, watchdog);
    // Behind the resume, which cuts metrics.jsonl to what its checkpoint has seen.
    if (world.Rank() == 0 && recipe.log.Any()) StartTracker(TrackProgram(), paths.root, log);
    return run.ToTheEnd();
  } catch (const std::exception& error) {  // for those who look into the run's folder; main.cc reports it
    const std::string what = error.what();
    log.Error(what.substr(0, what.find('\n')));
    throw;
  }
}

}  // namespace plural::trainer
