#include "trainer/commands/train.h"

#include <CLI/CLI.hpp>

#include "data/error.h"
#include "data/sha256.h"
#include "dist/agreement.h"
#include "trainer/base/signals.h"
#include "trainer/base/version.h"
#include "trainer/commands/compute_device.h"
#include "trainer/commands/gpu_arithmetic.h"
#include "trainer/commands/model_options.h"
#include "trainer/recipe/recipe.h"
#include "trainer/run/train.h"

namespace plural::trainer {
namespace {

// "" on one rank, which has nothing to be compared with.
std::string ProgramSha256(const dist::World& world) {
  if (world.Size() == 1) return "";
  try {
    return data::Sha256OfFile("/proc/self/exe");
  } catch (const data::MissingInput&) {  // no /proc: versions alone are compared
    return "";
  }
}

dist::Deadlines DeadlinesOf(const Recipe& recipe) {
  return {.enabled = recipe.watchdog.enabled,
          .start = recipe.watchdog.start_seconds,
          .load = recipe.watchdog.load_seconds,
          .step = recipe.watchdog.step_seconds,
          .checkpoint = recipe.watchdog.checkpoint_seconds,
          .validation = recipe.watchdog.validation_seconds};
}

}  // namespace

dist::Deadlines DeadlinesToStart(const TrainOptions& options) {
  try {
    return DeadlinesOf(LoadRecipe(options.recipe, options.overrides));
  } catch (const ExitError&) {
    return {};
  }
}

void AddTrainOptions(CLI::App& command, TrainOptions& options) {
  command.add_option("RECIPE", options.recipe, "The recipe, a YAML file")->required();
  command
      .add_option("OVERRIDES", options.overrides, "Values that replace the recipe's: optimizer.lr=1e-4 ...")
      ->type_name("a.b=c");
  command.footer(
      "Started again with the same recipe, a run goes on from its newest checkpoint. Ctrl-C, SIGTERM, "
      "SIGHUP and SIGUSR1 make it save and end with exit code 75. data.train is the corpus that plural "
      "prepare makes; "
      "docs/recipes.md lists all keys, and so does plural validate --keys.");
}

int RunTrain(const TrainOptions& options, dist::World& world, dist::Collectives& collectives,
             dist::Watchdog& watchdog) {
  const StopSignal stop;  // heard since main
  const Recipe recipe =
      MakeOnEveryRank(world, collectives, [&] { return LoadRecipe(options.recipe, options.overrides); });
  watchdog.Follow(DeadlinesOf(recipe));
  world.GetPulse().Enter(dist::Phase::kLoad);
  RequireEqual("the program's version", Version(), world, collectives);
  RequireEqual("the SHA-256 of the program's own file", ProgramSha256(world), world, collectives);
  RequireEqual("the recipe's hash (" + options.recipe + ")", data::Sha256OfBytes(recipe.Canonical().dump()),
               world, collectives);
  SetThreads(recipe.run.threads, world);
  if (!AllUseCuda(UsesCuda(recipe.model.device, recipe.model.dtype), world, collectives)) {
    return static_cast<int>(Train(recipe, at::kCPU, world, collectives, stop, watchdog));
  }

  const int device = dist::LocalCudaDevice(world);  // opens the GPU part of libtorch
  SetGpuArithmetic(recipe.run.deterministic);
  const auto nccl =
      dist::MakeNcclCollectives(world, device, recipe.watchdog.enabled ? recipe.watchdog.nccl_seconds : 0.0);
  return static_cast<int>(Train(recipe, at::Device(at::kCUDA, static_cast<at::DeviceIndex>(device)), world,
                                *nccl, stop, watchdog));
}

}  // namespace plural::trainer
