// Adapters of a tiny model. An input is adapter_config.json, a NUL byte, and adapter_model.safetensors: any
// such folder is refused in one line, or gives a model whose every weight is finite.
#include <ATen/core/Tensor.h>
#include <ATen/ops/isfinite.h>

#include <algorithm>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "tests/fuzz/require.h"
#include "tests/fuzz/safetensors_mutator.h"
#include "trainer/base/error.h"
#include "trainer/files/hf_folder.h"
#include "trainer/files/load_model.h"

namespace plural::fuzz {
namespace {

using plural::ExitCode;

// The model of seeds.py.
void WriteModel(const std::filesystem::path& folder) {
  const nlohmann::json config = {{"model_type", "llama"},   {"vocab_size", 11},
                                 {"hidden_size", 8},        {"intermediate_size", 12},
                                 {"num_hidden_layers", 1},  {"num_attention_heads", 2},
                                 {"num_key_value_heads", 1}};
  trainer::Decoder model(trainer::ModelConfig::FromJson(config, "tiny"), at::kFloat, at::kCPU);
  model.InitializeRandom(1);
  trainer::SaveModel(model, folder, "");
}

struct Folders {
  Folders() {
    WriteModel(root.Path() / "model");
    std::filesystem::create_directory(root.Path() / "adapter");
  }
  ScratchFolder root;
};

}  // namespace
}  // namespace plural::fuzz

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t max_size,
                                               unsigned seed) {
  const std::string_view input(reinterpret_cast<char*>(data), size);
  const std::size_t end = std::min(input.find('\0'), size);
  const std::string_view config = input.substr(0, end), weights = input.substr(std::min(end + 1, size));
  std::string changed;
  if (seed % 2 == 0 && weights.size() + 1 < max_size) {
    changed = plural::fuzz::Mutated(config, max_size - weights.size() - 1) + '\0';
    changed += weights;
  } else {
    changed = std::string(config) + '\0';
    if (changed.size() < max_size) {
      changed += plural::fuzz::MutatedSafetensors(weights, max_size - changed.size(), seed / 2);
    }
  }
  changed.resize(std::min(changed.size(), max_size));
  std::copy(changed.begin(), changed.end(), data);
  return changed.size();
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const plural::fuzz::Folders folders;
  const std::filesystem::path& root = folders.root.Path();
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const std::size_t end = std::min(input.find('\0'), size);
  folders.root.Write("adapter/adapter_config.json", input.substr(0, end));
  folders.root.Write("adapter/adapter_model.safetensors", input.substr(std::min(end + 1, size)));
  try {
    const auto model = plural::trainer::LoadModel(root / "model", root / "adapter", at::kFloat, at::kCPU);
    for (const auto& [name, tensor] : model.AdapterParameters()) {
      plural::fuzz::Require(at::isfinite(tensor).all().item<bool>(), name + " is not finite");
    }
  } catch (const plural::ExitError& error) {
    plural::fuzz::Require(error.Code() == plural::ExitCode::kBadData, error.what());
    plural::fuzz::RequireOneLine(error.what());
  }
  return 0;
}
