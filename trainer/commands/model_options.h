// Options and checks that every command with a model shares.
//
// Owns: --dtype, --device, --quantize and --threads, which folders --model and --adapter mean, a warning.
// Does not own: names of the Hub (files/hub_cache.h), what a device means (compute_device.h), loading
// (files/load_model.h), whether a corpus fits (files/corpus_fit.h). Thread rule: main thread.
#pragma once

#include <ATen/core/TensorBody.h>

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "dist/agreement.h"
#include "dist/collectives.h"
#include "dist/world.h"
#include "trainer/files/hub_cache.h"
#include "trainer/model/decoder.h"

namespace CLI {
class App;
}

namespace plural::trainer {

inline constexpr const char* kModelHelp =
    "Folder of the model, or its name on the Hugging Face Hub (as far as it has been downloaded)";
inline constexpr const char* kAdapterHelp = "Folder of a LoRA adapter for it, or its name on the Hub";

// The options with the folders that their models mean (files/hub_cache.h). COLLECTIVE.
template <typename Options>
Options WithFolders(Options options, const dist::World& world, dist::Collectives& collectives) {
  OnEveryRank(world, collectives, [&] {
    options.model = HubFolder(options.model, "--model");
    if constexpr (requires { options.adapter; }) {
      if (!options.adapter.empty()) options.adapter = HubFolder(options.adapter, "--adapter");
    }
  });
  return options;
}

// How a command computes.
struct ComputeOptions {
  std::string dtype = "fp32";
  std::string device = "auto";
  std::string quantize = "none";
  std::int64_t threads = 0;  // per rank; 0: see SetThreads
};

void AddComputeOptions(CLI::App& command, ComputeOptions& options);

// What of it decides results, for the identity of kept lines. `device` is the one that computes.
nlohmann::json ComputedWith(const ComputeOptions& options, at::Device device);

// Compute threads of this rank; 0: OMP_NUM_THREADS, or the cores that it may use, shared among the ranks that
// may use them.
void SetThreads(std::int64_t threads, const dist::World& world);

// Rank 0 says so where `model` has latents: figures of a prompt without one are not what it was trained for.
void WarnOfLatents(const Decoder& model, const dist::World& world);

}  // namespace plural::trainer
