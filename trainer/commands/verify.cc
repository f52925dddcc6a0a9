#include "trainer/commands/verify.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <iostream>
#include <nlohmann/json.hpp>

#include "trainer/base/error.h"
#include "trainer/base/printable.h"
#include "trainer/base/readable.h"
#include "trainer/run/verify.h"

namespace plural::trainer {
namespace {

const char* Word(Finding::State state) {
  if (state == Finding::State::kBad) return "bad";
  return state == Finding::State::kGood ? "good" : "note";
}

void PrintJson(const std::string& run, const RunReport& report) {
  nlohmann::ordered_json out = {{"run", run}, {"state", report.state}, {"good", report.Bad() == 0}};
  if (!report.holder.empty()) out["holder"] = report.holder;
  out["findings"] = nlohmann::ordered_json::array();
  for (const Finding& finding : report.findings) {
    out["findings"].push_back(
        {{"what", finding.what}, {"state", Word(finding.state)}, {"text", finding.text}});
  }
  std::cout << out.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) << "\n";
}

// A start passes over damaged checkpoints and writes a damaged result again; all else it refuses.
const char* Advice(const RunReport& report) {
  const auto is_checkpoint = [](const Finding& one) {
    return one.what.starts_with("checkpoints/") || one.what.starts_with("mirror/");
  };
  const bool has_whole = std::ranges::any_of(report.findings, [&](const Finding& one) {
    return is_checkpoint(one) && one.state == Finding::State::kGood;
  });
  const bool mends = std::ranges::all_of(report.findings, [&](const Finding& one) {
    return one.state != Finding::State::kBad || is_checkpoint(one) || one.what == "adapter" ||
           one.what == "model";
  });
  return has_whole && mends ? "a start of the run goes on from its newest checkpoint that is whole"
                            : "restore that, or train under another name";
}

}  // namespace

void AddVerifyOptions(CLI::App& command, VerifyOptions& options) {
  command.add_option("RUN", options.run, "The folder of a run, such as runs/mine")->required();
  command.add_flag("--json", options.json, "Print one JSON object instead of lines");
  command.footer(
      "Reads every checkpoint, metrics.jsonl, the result and the recipe, and compares the corpora's "
      "sidecars; "
      "the base model is not read. Nothing is changed. Exit code 65: something is damaged; 66: no run is "
      "there.");
}

int RunVerify(const VerifyOptions& options) {
  const RunReport report = VerifyRun(options.run);
  const auto checked = std::ranges::count_if(
      report.findings, [](const Finding& one) { return one.state != Finding::State::kNote; });
  const std::string run = Printable(options.run);
  if (options.json) {
    PrintJson(options.run, report);
  } else {
    for (const Finding& finding : report.findings) {
      std::string word = Word(finding.state);
      word.resize(6, ' ');
      std::cout << word << Printable(finding.what + ": " + finding.text) << "\n";
    }
  }
  if (report.Bad() > 0) {
    throw ExitError(ExitCode::kBadData,
                    run + ": of " + Counted(checked, "thing") + " looked at " + std::to_string(report.Bad()) +
                        (report.Bad() == 1 ? " is" : " are") + " damaged; " + Advice(report));
  }
  if (!options.json) {
    std::cout << run << ": " << report.state << "; " << Counted(checked, "thing") << " looked at, all good\n";
  }
  return 0;
}

}  // namespace plural::trainer
