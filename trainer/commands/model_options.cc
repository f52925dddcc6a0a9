#include "trainer/commands/model_options.h"

#include <ATen/Parallel.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <nlohmann/json.hpp>

#include "trainer/plan/usable_cores.h"

namespace plural::trainer {

constexpr std::int64_t kMostThreads = 4096;

void AddComputeOptions(CLI::App& command, ComputeOptions& options) {
  command.add_option("--dtype", options.dtype, "fp32, bf16 or fp64")
      ->check(CLI::IsMember({"fp32", "bf16", "fp64"}))
      ->capture_default_str();
  command
      .add_option("--device", options.device,
                  "auto (a GPU where every rank sees one), cpu or cuda; fp64 is computed on the CPU")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}))
      ->capture_default_str();
  command
      .add_option("--quantize", options.quantize,
                  "nf4: the linear weights of the layers in 4 bits; none: as the folder has them")
      ->check(CLI::IsMember({"none", "nf4"}))
      ->capture_default_str();
  command
      .add_option(
          "--threads", options.threads,
          "Compute threads per rank; 0: OMP_NUM_THREADS, or the cores that the rank may use, shared with the "
          "ranks that may use them too")
      ->check(CLI::Range(std::int64_t{0}, kMostThreads))
      ->capture_default_str();
}

namespace {

// The number in OMP_NUM_THREADS, whose first number counts where there are several; 0 where it is not set.
// Set to something else it is 1: who sets it wants fewer threads than all.
std::int64_t OmpThreads() {
  const char* text = std::getenv("OMP_NUM_THREADS");
  if (text == nullptr) return 0;
  const long threads = std::strtol(text, nullptr, 10);
  return threads > 0 && threads <= kMostThreads ? threads : 1;
}

}  // namespace

nlohmann::json ComputedWith(const ComputeOptions& options, at::Device device) {
  nlohmann::json computed = {options.dtype, c10::DeviceTypeName(device.type(), /*lower_case=*/true)};
  // Only where it is given: lines that were kept before there was the option are gone on with.
  if (options.quantize != "none") computed.push_back(options.quantize);
  return computed;
}

void SetThreads(std::int64_t threads, const dist::World& world) {
  if (threads == 0) threads = OmpThreads();
  if (threads == 0) threads = std::max(1, UsableCores() / world.RanksOnTheseCores());
  at::set_num_threads(static_cast<int>(threads));
}

void WarnOfLatents(const Decoder& model, const dist::World& world) {
  if (model.LatentHeads() == nullptr || world.Rank() != 0) return;
  std::cerr
      << "plural: warning: the model was trained with latents (method cvf), and these figures are of "
         "prompts without one; `plural generate --latents` and a validation corpus in training use them\n";
}

}  // namespace plural::trainer
