#include "trainer/plan/estimate.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace plural::trainer {
namespace {

ModelConfig Mistral7B() {
  return ModelConfig::FromJson({{"model_type", "mistral"},
                                {"architectures", {"MistralForCausalLM"}},
                                {"vocab_size", 32000},
                                {"hidden_size", 4096},
                                {"intermediate_size", 14336},
                                {"num_hidden_layers", 32},
                                {"num_attention_heads", 32},
                                {"num_key_value_heads", 8}},
                               "test");
}

ModelConfig Llama2(int hidden, int intermediate, int layers, int heads) {
  return ModelConfig::FromJson({{"model_type", "llama"},
                                {"architectures", {"LlamaForCausalLM"}},
                                {"vocab_size", 32000},
                                {"hidden_size", hidden},
                                {"intermediate_size", intermediate},
                                {"num_hidden_layers", layers},
                                {"num_attention_heads", heads},
                                {"num_key_value_heads", heads}},
                               "test");
}

// The counts that Hugging Face PEFT reports for the published adapters.
TEST(Estimate, CountsTheParametersOfPublishedAdapters) {
  const std::vector<std::string> block = {"q_proj",    "k_proj",  "v_proj",   "o_proj",
                                          "gate_proj", "up_proj", "down_proj"};
  EXPECT_EQ(
      AdapterParameterCount(Mistral7B(), {.rank = 16, .targets = {"q_proj", "k_proj", "v_proj", "lm_head"}}),
      10'014'720);
  EXPECT_EQ(AdapterParameterCount(Llama2(4096, 11008, 32, 32), {.rank = 64, .targets = {"q_proj", "v_proj"}}),
            33'554'432);
  EXPECT_EQ(AdapterParameterCount(Mistral7B(), {.rank = 4, .targets = block}), 10'485'760);
  EXPECT_EQ(AdapterParameterCount(Llama2(5120, 13824, 40, 40), {.rank = 4, .targets = block}), 15'646'720);
}

TEST(Estimate, WeightsAreCountedOnce) {
  const ModelConfig config = Mistral7B();
  Recipe recipe;
  recipe.adapter.lora = false;
  const RunEstimate full = EstimateRun(recipe, config);
  EXPECT_EQ(full.trained_parameters, config.ParameterCount());
  EXPECT_EQ(full.weight_bytes, 0) << "trained weights are among the training bytes";
  EXPECT_EQ(full.training_bytes, 4 * 4 * config.ParameterCount());
  // Of two moments a rank has its share: 16 bytes a parameter become 8 + 8 / 4.
  EXPECT_EQ(EstimateRun(recipe, config, /*ranks=*/4).training_bytes, 10 * config.ParameterCount());
  recipe.optimizer.sharding = "off";
  EXPECT_EQ(EstimateRun(recipe, config, /*ranks=*/4).training_bytes, full.training_bytes);
  recipe.optimizer.sharding = "auto";
  recipe.adapter.lora = true;
  EXPECT_EQ(EstimateRun(recipe, config, /*ranks=*/4).training_bytes,
            EstimateRun(recipe, config).training_bytes);
  const RunEstimate adapter = EstimateRun(recipe, config);
  EXPECT_EQ(adapter.weight_bytes, 4 * config.ParameterCount());
  EXPECT_EQ(adapter.checkpoint_bytes, 3 * 4 * adapter.trained_parameters);
  // 218,103,808 weights a layer in half a byte, one byte for 64 of them and 4 for 16384; 7 maps of 1024
  // bytes.
  recipe.model.quantize = "nf4";
  const std::int64_t layer = 218'103'808;
  const std::int64_t nf4 = 32 * (layer / 2 + layer / 64 + layer / 16384 * 4 + 7 * 1024);
  const std::int64_t largest = 4096 * 14336;  // has its place in full
  EXPECT_EQ(EstimateRun(recipe, config).weight_bytes,
            4 * (config.ParameterCount() - 32 * layer + largest) + nf4);
  recipe.model.quantize = "none";
  recipe.model.dtype = "fp64";
  EXPECT_EQ(EstimateRun(recipe, config).weight_bytes, 8 * config.ParameterCount());
}

}  // namespace
}  // namespace plural::trainer
