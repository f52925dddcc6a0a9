// The command line: parses the command word, runs it, reports what went wrong in one line.
//
// Owns: the only catch of the program, the process's exit code, the World. Does not own: what commands do
// (commands/), what exceptions mean (failure.h).
#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>

#include "dist/agreement.h"
#include "dist/collectives.h"
#include "dist/watchdog.h"
#include "dist/world.h"
#include "trainer/base/signals.h"
#include "trainer/base/version.h"
#include "trainer/commands/doctor.h"
#include "trainer/commands/dry_run.h"
#include "trainer/commands/evaluate.h"
#include "trainer/commands/export.h"
#include "trainer/commands/failure.h"
#include "trainer/commands/generate.h"
#include "trainer/commands/help.h"
#include "trainer/commands/host_libraries.h"
#include "trainer/commands/inspect.h"
#include "trainer/commands/rate.h"
#include "trainer/commands/score.h"
#include "trainer/commands/train.h"
#include "trainer/commands/validate.h"
#include "trainer/commands/verify.h"
#include "trainer/recipe/suggest.h"

namespace plural::trainer {
namespace {

// What the report of a failure needs to know, kept outside of what may fail.
struct Session {
  int argc;
  char** argv;
  std::unique_ptr<dist::Watchdog> watchdog;  // outlives the world, whose end it watches
  std::unique_ptr<dist::World> world;
  std::string phase;
};

// CLI11 says what is wrong with an argument, not which command's help explains it.
std::string UsageMessage(const CLI::App& app, const std::string& what) {
  std::string help = "plural";
  for (const CLI::App* command : app.get_subcommands()) help += " " + command->get_name();
  return what + "; see " + help + " --help";
}

// CLI11 takes an unknown command word for a stray argument.
void RequireKnownCommand(int argc, char** argv) {
  const std::string word = argc > 1 ? argv[1] : "";
  if (word.empty()) throw ExitError(ExitCode::kUsage, "a command is needed; see plural --help");
  if (word[0] == '-') return;
  std::string nearest;
  int least = 3;  // more edits than this are another word
  for (const CommandHelp& command : Commands()) {
    if (command.word == word && !command.script) return;
    if (command.word == word) {
      throw ExitError(ExitCode::kUsage, word + " runs through launch/plural, not this program");
    }
    const int distance = EditDistance(word, command.word);
    if (distance < least) {
      least = distance;
      nearest = command.word;
    }
  }
  throw ExitError(ExitCode::kUsage,
                  "unknown command '" + word + "'; " +
                      (nearest.empty() ? "see plural --help" : "did you mean " + nearest + "?"));
}

int Run(Session& session) {
  CLI::App app{"Trains language models to give many different good answers."};
  app.name("plural");
  app.set_version_flag("--version", std::string("plural ") + Version());
  app.require_subcommand(1);
  app.formatter(HelpFormatter());

  const auto add = [&](const char* word) {
    return app.add_subcommand(word, std::string(FindCommand(word)->what));
  };
  TrainOptions train;
  AddTrainOptions(*add("train"), train);
  GenerateOptions generate;
  AddGenerateOptions(*add("generate"), generate);
  ScoreOptions score;
  AddScoreOptions(*add("score"), score);
  RateOptions rate;
  AddRateOptions(*add("rate"), rate);
  EvaluateOptions evaluate;
  AddEvaluateOptions(*add("evaluate"), evaluate);
  ExportOptions export_options;
  AddExportOptions(*add("export"), export_options);
  InspectOptions inspect;
  AddInspectOptions(*add("inspect"), inspect);
  VerifyOptions verify;
  AddVerifyOptions(*add("verify"), verify);
  ValidateOptions validate;
  AddValidateOptions(*add("validate"), validate);
  DryRunOptions dry_run;
  AddDryRunOptions(*add("dry-run"), dry_run);
  DoctorOptions doctor;
  AddDoctorOptions(*add("doctor"), doctor);

  RequireKnownCommand(session.argc, session.argv);
  try {
    app.parse(session.argc, session.argv);
  } catch (const CLI::Success& help) {
    return app.exit(help);
  } catch (const CLI::ParseError& error) {
    throw ExitError(ExitCode::kUsage, UsageMessage(app, error.what()));
  }

  const std::string command = app.get_subcommands().front()->get_name();
  session.phase = command;
  if (!FindCommand(command)->ranks && dist::World::LaunchedRanks() > 1) {
    // One rank says it for all.
    if (dist::World::LaunchedRank() > 0) return static_cast<int>(ExitCode::kUsage);
    throw ExitError(ExitCode::kUsage, command + " works on one rank alone; start it without mpirun");
  }
  if (command == "inspect") return RunInspect(inspect);
  if (command == "verify") return RunVerify(verify);
  if (command == "export") return RunExport(export_options);
  if (command == "validate") return RunValidate(validate);
  if (command == "dry-run") return RunDryRun(dry_run);

  // Before anything is read, which may be from a disk that stands still.
  session.watchdog = std::make_unique<dist::Watchdog>(dist::Deadlines{});
  if (command == "train") session.watchdog->Follow(DeadlinesToStart(train));
  session.world =
      std::make_unique<dist::World>(&session.argc, &session.argv, session.watchdog->SharedPulse());
  dist::World& world = *session.world;
  session.watchdog->Keep(world);
  const std::unique_ptr<dist::Collectives> collectives = dist::MakeMpiCollectives(world);
  dist::RequireEqual("the command", command, world, *collectives);
  world.GetPulse().Enter(dist::Phase::kWork);
  if (command == "train") return RunTrain(train, world, *collectives, *session.watchdog);
  if (command == "generate") return RunGenerate(generate, world, *collectives);
  if (command == "score") return RunScore(score, world, *collectives);
  if (command == "rate") return RunRate(rate, world, *collectives);
  if (command == "evaluate") return RunEvaluate(evaluate, world, *collectives);
  if (command == "doctor") return RunDoctor(doctor, world, *collectives);
  throw std::logic_error("no code runs the command " + command);
}

// One write, so that reports of several ranks do not mix within a line.
int Report(const Session& session) {
  const bool has_peers = session.world != nullptr && session.world->Size() > 1;
  const Failure failure = DescribeFailure(std::current_exception());
  std::cout.flush();
  std::cerr << FormatFailure(failure, has_peers ? session.world->Rank() : -1, session.phase) << std::flush;
  const int code = static_cast<int>(failure.code);
  if (session.watchdog != nullptr) session.watchdog->Stop();
  if (has_peers) session.world->Abort(code);
  return code;
}

}  // namespace
}  // namespace plural::trainer

int main(int argc, char** argv) {
  // First of all: a request to stop is heard while MPI starts, too, and while the process ends.
  plural::WriteErrorsInsteadOfSignals();
  const auto* command = argc > 1 ? plural::trainer::FindCommand(argv[1]) : nullptr;
  if (command != nullptr && command->ranks) {
    plural::StopSignal::Hear();
    plural::StatusSignal::Hear();
  }
  plural::trainer::LimitLibraryCaches();
  plural::trainer::LetGpuMemoryGrow();
  plural::trainer::KeepFreedMemory();
  plural::trainer::Session session{
      .argc = argc, .argv = argv, .watchdog = nullptr, .world = nullptr, .phase = ""};
  try {
    return plural::trainer::Run(session);
  } catch (...) {
    return plural::trainer::Report(session);
  }
}
