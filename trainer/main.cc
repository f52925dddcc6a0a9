// The command line: parses the command word, runs it, reports what went wrong in one line.
#include <CLI/CLI.hpp>

#include "trainer/error.h"
#include "trainer/version.h"

int main(int argc, char** argv) {
  CLI::App app{"plural: train language models to give many good answers"};
  app.set_version_flag("--version", plural::trainer::Version());
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : static_cast<int>(plural::trainer::ExitCode::kUsage);
  }
  return 0;
}
