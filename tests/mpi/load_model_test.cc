#include "trainer/files/load_model.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "tests/mpi/mpi_world.h"
#include "trainer/files/hf_folder.h"

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

// Also of what it has quantised, and of linear weights that come later in full.
TEST(LoadModel, NeighboursGetNf4) {
  const auto collectives = dist::MakeMpiCollectives(World());
  const fs::path folder = fs::temp_directory_path() / ("plural-load-nf4-" + std::to_string(getpid()));
  const Decoder full = TinyModel(1);
  if (World().Rank() == 0) SaveModel(full, folder, "");
  const std::string path = World().Rank() == 0 ? folder.string() : "/nowhere";
  Decoder model(full.Config(), at::kFloat, at::kCPU, {}, Decoder::Linears::kLater);
  LoadBaseWeights(model, path, World(), *collectives, FullLinears::kToNf4);
  Decoder kept(full.Config(), at::kFloat, at::kCPU, {}, Decoder::Linears::kLater);
  LoadBaseWeights(kept, path, World(), *collectives, FullLinears::kKeep);
  const auto expected = full.BaseParameters(), found = model.BaseParameters(),
             in_full = kept.BaseParameters();
  int quantised = 0;
  for (std::size_t i = 0; i < found.size(); ++i) {
    const auto& [name, tensor] = expected[i];
    EXPECT_TRUE(at::equal(in_full[i].tensor, tensor)) << name;
    const Nf4Weight* nf4 = model.Nf4(name);
    if (nf4 == nullptr) {
      EXPECT_TRUE(at::equal(found[i].tensor, tensor)) << name;
      continue;
    }
    ++quantised;
    EXPECT_TRUE(at::equal(nf4->Dequantized(at::kFloat), QuantizeToNf4(tensor).Dequantized(at::kFloat)))
        << name;
  }
  EXPECT_EQ(quantised, 3 * 7);
  if (World().Rank() == 0) fs::remove_all(folder);
}

}  // namespace
}  // namespace plural::trainer
