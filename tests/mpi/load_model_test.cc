#include "trainer/model/load_model.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "mpi_main.h"
#include "trainer/model/hf_folder.h"

namespace plural::trainer {
namespace {

namespace fs = std::filesystem;
using testing::World;

Decoder TinyModel(std::uint64_t seed) {
  const auto config = ModelConfig::FromJson({{"model_type", "llama"},
                                             {"architectures", {"LlamaForCausalLM"}},
                                             {"vocab_size", 50},
                                             {"hidden_size", 16},
                                             {"intermediate_size", 24},
                                             {"num_hidden_layers", 3},
                                             {"num_attention_heads", 4},
                                             {"num_key_value_heads", 2}},
                                            "test");
  Decoder model(config, at::kFloat, at::kCPU);
  model.InitializeRandom(seed);
  return model;
}

// All ranks of this test are on one machine; only rank 0 has a folder to read from.
TEST(LoadModel, OneRankOfAMachineReadsForAll) {
  const auto collectives = dist::MakeMpiCollectives(World());
  const fs::path folder = fs::temp_directory_path() / ("plural-load-" + std::to_string(getpid()));
  if (World().Rank() == 0) SaveModel(TinyModel(1), folder, "");
  Decoder model = TinyModel(2);
  LoadBaseWeights(model, World().Rank() == 0 ? folder.string() : "/nowhere", World(), *collectives);
  const auto expected = TinyModel(1).BaseParameters(), found = model.BaseParameters();
  for (std::size_t i = 0; i < expected.size(); ++i) {
    EXPECT_TRUE(at::equal(found[i].tensor, expected[i].tensor)) << expected[i].name;
  }
  if (World().Rank() == 0) fs::remove_all(folder);
}

}  // namespace
}  // namespace plural::trainer
