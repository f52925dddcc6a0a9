#include "trainer/commands/model_options.h"

#include <ATen/Parallel.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <iostream>
#include <thread>

namespace plural::trainer {

void AddComputeOptions(CLI::App& command, std::string& dtype, std::int64_t& threads) {
  command.add_option("--dtype", dtype, "fp32, bf16 or fp64")
      ->check(CLI::IsMember({"fp32", "bf16", "fp64"}))
      ->capture_default_str();
  command.add_option("--threads", threads, "Compute threads a rank; 0: cores shared by the machine's ranks")
      ->check(CLI::Range(std::int64_t{0}, std::int64_t{4096}))
      ->capture_default_str();
}

void SetThreads(std::int64_t threads, const dist::World& world) {
  if (threads == 0) {
    threads = std::max<std::int64_t>(1, std::thread::hardware_concurrency() / world.LocalSize());
  }
  at::set_num_threads(static_cast<int>(threads));
}

void WarnOfLatents(const Decoder& model, const dist::World& world) {
  if (model.LatentHeads() == nullptr || world.Rank() != 0) return;
  std::cerr
      << "plural: warning: the model was trained with latents (method cvf), and these figures are of "
         "prompts without one; `plural generate --latents` and a validation corpus in training use them\n";
}

}  // namespace plural::trainer
