// The command line: parses the command word, runs it, reports what went wrong in one line.
//
// Owns: the only catch of the program, the process's exit code, the World. Does not own: what commands do
// (commands/), what exceptions mean (failure.h).
#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>

#include "dist/collectives.h"
#include "dist/world.h"
#include "trainer/base/version.h"
#include "trainer/commands/doctor.h"
#include "trainer/commands/dry_run.h"
#include "trainer/commands/evaluate.h"
#include "trainer/commands/export.h"
#include "trainer/commands/failure.h"
#include "trainer/commands/generate.h"
#include "trainer/commands/host_libraries.h"
#include "trainer/commands/inspect.h"
#include "trainer/commands/rate.h"
#include "trainer/commands/score.h"
#include "trainer/commands/train.h"
#include "trainer/commands/validate.h"
#include "trainer/recipe/suggest.h"

namespace plural::trainer {
namespace {

// What the report of a failure needs to know, kept outside of what may fail.
struct Session {
  int argc;
  char** argv;
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
void RequireKnownCommand(const CLI::App& app, int argc, char** argv) {
  const std::string word = argc > 1 ? argv[1] : "";
  if (word.empty()) throw ExitError(ExitCode::kUsage, "a command is needed; see plural --help");
  if (word[0] == '-') return;
  std::string nearest;
  int least = 3;  // more edits than this are another word
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) {
    if (command->get_name() == word) return;
    const int distance = EditDistance(word, command->get_name());
    if (distance < least) {
      least = distance;
      nearest = command->get_name();
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
  app.footer(
      "plural prepare (text to corpus) runs through launch/plural.\n"
      "Under mpirun, train, generate, score, rate and evaluate share the work over ranks.\n"
      "docs/running.md explains commands, exit codes and the run folder.");

  TrainOptions train;
  AddTrainOptions(*app.add_subcommand("train", "train as a recipe says, or continue where it stopped"),
                  train);
  GenerateOptions generate;
  AddGenerateOptions(*app.add_subcommand("generate", "give responses to the prompts of a corpus"), generate);
  ScoreOptions score;
  AddScoreOptions(*app.add_subcommand("score", "log-probabilities of given responses"), score);
  RateOptions rate;
  AddRateOptions(*app.add_subcommand("rate", "how well given responses fit, as the model judges"), rate);
  EvaluateOptions evaluate;
  AddEvaluateOptions(*app.add_subcommand("evaluate", "exact figures of a model on a corpus"), evaluate);
  ExportOptions export_options;
  AddExportOptions(*app.add_subcommand("export", "merge an adapter into the weights of its model"),
                   export_options);
  InspectOptions inspect;
  AddInspectOptions(*app.add_subcommand("inspect", "look into a corpus, checkpoint or adapter"), inspect);
  ValidateOptions validate;
  AddValidateOptions(*app.add_subcommand("validate", "check a recipe and print it in full"), validate);
  DryRunOptions dry_run;
  AddDryRunOptions(*app.add_subcommand("dry-run", "what a recipe would do, need and write"), dry_run);
  DoctorOptions doctor;
  AddDoctorOptions(*app.add_subcommand("doctor", "what is here, what is missing, how to get it"), doctor);

  RequireKnownCommand(app, session.argc, session.argv);
  try {
    app.parse(session.argc, session.argv);
  } catch (const CLI::Success& help) {
    return app.exit(help);
  } catch (const CLI::ParseError& error) {
    throw ExitError(ExitCode::kUsage, UsageMessage(app, error.what()));
  }

  const std::string command = app.get_subcommands().front()->get_name();
  session.phase = command;
  if (command == "inspect") return RunInspect(inspect);
  if (command == "export") return RunExport(export_options);
  if (command == "validate") return RunValidate(validate);
  if (command == "dry-run") return RunDryRun(dry_run);

  session.world = std::make_unique<dist::World>(&session.argc, &session.argv);
  dist::World& world = *session.world;
  const std::unique_ptr<dist::Collectives> collectives = dist::MakeMpiCollectives(world);
  if (command == "train") return RunTrain(train, world, *collectives);
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
  if (has_peers) session.world->Abort(code);
  return code;
}

}  // namespace
}  // namespace plural::trainer

int main(int argc, char** argv) {
  plural::trainer::LimitLibraryCaches();
  plural::trainer::KeepFreedMemory();
  plural::trainer::Session session{.argc = argc, .argv = argv, .world = nullptr, .phase = ""};
  try {
    return plural::trainer::Run(session);
  } catch (...) {
    return plural::trainer::Report(session);
  }
}
