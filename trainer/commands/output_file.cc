#include "trainer/commands/output_file.h"

#include <CLI/CLI.hpp>
#include <exception>
#include <nlohmann/json.hpp>
#include <set>
#include <system_error>
#include <vector>

#include "dist/agreement.h"
#include "trainer/base/error.h"
#include "trainer/commands/failure.h"

namespace plural::trainer {
namespace fs = std::filesystem;

CLI::Option* AddOutputOptions(CLI::App& command, std::string& output, bool& force, const std::string& help) {
  command.add_flag("--force", force, "Replace the output where it exists");
  return command.add_option("-o,--output", output, help);
}

void RequireNewOutput(const fs::path& output, bool force) {
  const auto refuse = [&](const std::string& what) {
    throw ExitError(ExitCode::kCannotCreate, output.string() + ": " + what);
  };
  std::error_code error;
  const fs::path parent = output.has_parent_path() ? output.parent_path() : fs::path(".");
  if (!fs::is_directory(parent, error)) {
    refuse("the folder " + parent.string() + " does not exist; make it, or name another output");
  }
  const fs::file_status status = fs::symlink_status(output, error);
  if (!fs::exists(status)) return;
  if (!fs::is_regular_file(fs::status(output, error))) refuse("is no regular file; name another output");
  if (!force) refuse("exists; give --force to replace it, or name another output");
}

nlohmann::json StampOf(const fs::path& path) {
  std::error_code error;
  if (!fs::is_directory(path, error)) {
    const auto age = fs::last_write_time(path, error).time_since_epoch().count();
    return {path.string(), fs::file_size(path, error), age};
  }
  std::set<fs::path> files;
  for (const auto& entry : fs::directory_iterator(path, error)) {
    if (entry.is_regular_file(error)) files.insert(entry.path());
  }
  nlohmann::json stamps = nlohmann::json::array();
  for (const fs::path& file : files) stamps.push_back(StampOf(file));
  return stamps;
}

void WorkOrDiscard(KeptLines* output, const dist::World& world, dist::Collectives& collectives,
                   const std::function<void()>& work) {
  std::exception_ptr fault;
  try {
    work();
  } catch (...) {  // rethrown below
    fault = std::current_exception();
  }
  std::vector<double> bad = {fault && DescribeFailure(fault).code == ExitCode::kBadData ? 1.0 : 0.0};
  collectives.AllReduceMax(bad);
  if (output != nullptr && bad[0] > 0.0) output->Discard();
  dist::OnEveryRank(world, collectives, [&] {
    if (fault) std::rethrow_exception(fault);
  });
}

std::string KeptLine(std::int64_t kept, std::int64_t total, const std::string& unit,
                     const std::string& output) {
  if (kept == 0) return "stopped on request: no " + unit + " were done yet, nothing is kept";
  return "stopped on request: " + std::to_string(kept) + (total > 0 ? " of " + std::to_string(total) : "") +
         " " + unit + " are kept in " + output + ".partial; start again to go on";
}

}  // namespace plural::trainer
