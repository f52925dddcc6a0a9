#include "trainer/commands/export.h"

#include <CLI/CLI.hpp>
#include <iostream>

#include "trainer/base/readable.h"
#include "trainer/commands/model_options.h"
#include "trainer/commands/output_file.h"
#include "trainer/files/hub_cache.h"
#include "trainer/files/merge.h"

namespace plural::trainer {
namespace {

at::ScalarType WrittenDType(const std::string& name) {
  if (name == "fp32") return at::kFloat;
  if (name == "fp16") return at::kHalf;
  if (name == "bf16") return at::kBFloat16;
  return at::ScalarType::Undefined;  // as the model's files
}

}  // namespace

void AddExportOptions(CLI::App& command, ExportOptions& options) {
  command.add_option("--model", options.model, kModelHelp)->required();
  command.add_option("--adapter", options.adapter, kAdapterHelp)->required();
  AddOutputOptions(command, options.output, options.force, "New folder for the merged model")->required();
  command.add_option("--dtype", options.dtype, "Of the merged weights: fp32, bf16, fp16, or the base's own")
      ->check(CLI::IsMember({"base", "fp32", "bf16", "fp16"}))
      ->capture_default_str();
  command.add_option("--shard-bytes", options.shard_bytes, "Largest sum of tensors in one weight file")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 60))
      ->capture_default_str();
}

int RunExport(const ExportOptions& options) {
  const MergeReport report = MergeAdapter({.model = HubFolder(options.model, "--model"),
                                           .adapter = HubFolder(options.adapter, "--adapter"),
                                           .output = options.output,
                                           .replace = options.force,
                                           .dtype = WrittenDType(options.dtype),
                                           .shard_bytes = options.shard_bytes});
  if (report.untied) {
    std::cerr << "plural: warning: the adapter changes the head, which the model ties to its embedding; the "
                 "merged model has a head of its own (tie_word_embeddings false)\n";
  }
  if (report.dequantized > 0) {
    std::cerr << "plural: warning: " << report.dequantized
              << " tensors of the model are stored in NF4; they are written dequantised, as the adapter was "
                 "trained on them, not as they were before\n";
  }
  std::cout << options.output << ": " << report.tensors << " tensors, " << report.changed
            << " of them changed by the adapter, in " << Counted(report.files, "file") << " of "
            << report.bytes << " bytes\n";
  return 0;
}

}  // namespace plural::trainer
