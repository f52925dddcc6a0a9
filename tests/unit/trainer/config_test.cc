#include "trainer/model/config.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "trainer/error.h"

namespace plural::trainer {
namespace {
using nlohmann::json;

json Llama() {
  return {{"architectures", {"LlamaForCausalLM"}},
          {"model_type", "llama"},
          {"vocab_size", 100},
          {"hidden_size", 32},
          {"intermediate_size", 48},
          {"num_hidden_layers", 2},
          {"num_attention_heads", 4},
          {"num_key_value_heads", 2}};
}
json Mistral() {
  json object = Llama();
  object["model_type"] = "mistral";
  object["architectures"] = {"MistralForCausalLM"};
  return object;
}
json With(json object, const char* key, json value) {
  object[key] = std::move(value);
  return object;
}

void ExpectRefused(const json& object, const std::string& word) {
  try {
    ModelConfig::FromJson(object, "file");
    ADD_FAILURE() << "accepted: " << object.dump();
  } catch (const ExitError& error) {
    const std::string what = error.what();
    EXPECT_EQ(error.Code(), ExitCode::kBadData) << what;
    EXPECT_TRUE(what.starts_with("file: ")) << what;
    EXPECT_NE(what.find(word), std::string::npos) << what;
  }
}

// The defaults of transformers 5, which an absent key stands for.
TEST(ConfigTest, AbsentKeysMeanWhatTransformersTakes) {
  json bare = Llama();
  bare.erase("num_key_value_heads");
  bare.erase("architectures");
  const ModelConfig llama = ModelConfig::FromJson(bare, "file");
  EXPECT_EQ(llama.architecture, "LlamaForCausalLM");
  EXPECT_EQ(llama.num_key_value_heads, 4);
  EXPECT_EQ(llama.head_dim, 8);
  EXPECT_EQ(llama.max_position_embeddings, 2048);
  EXPECT_EQ(llama.sliding_window, 0);
  EXPECT_EQ(llama.rope_theta, 10000.0);
  EXPECT_EQ(llama.rms_norm_eps, 1e-6);
  EXPECT_FALSE(llama.tie_word_embeddings);
  EXPECT_EQ(llama.eos_token_ids, std::vector<std::int64_t>{2});
  EXPECT_EQ(llama.bos_token_id, 1);

  bare["model_type"] = "mistral";
  bare["num_attention_heads"] = 16;
  const ModelConfig mistral = ModelConfig::FromJson(bare, "file");
  EXPECT_EQ(mistral.num_key_value_heads, 8);
  EXPECT_EQ(mistral.sliding_window, 4096);
  EXPECT_EQ(mistral.max_position_embeddings, 131072);
}

TEST(ConfigTest, NullIsNotAbsent) {
  json object = With(With(Mistral(), "sliding_window", nullptr), "head_dim", nullptr);
  object["eos_token_id"] = nullptr;
  object["bos_token_id"] = nullptr;
  object["num_key_value_heads"] = nullptr;
  const ModelConfig config = ModelConfig::FromJson(object, "file");
  EXPECT_EQ(config.sliding_window, 0);
  EXPECT_EQ(config.head_dim, 8);
  EXPECT_TRUE(config.eos_token_ids.empty());
  EXPECT_EQ(config.bos_token_id, -1);
  EXPECT_EQ(config.num_key_value_heads, 4);
}

TEST(ConfigTest, RotaryBaseOfBothGenerations) {
  const auto theta = [](const json& object) { return ModelConfig::FromJson(object, "file").rope_theta; };
  EXPECT_EQ(theta(With(With(Llama(), "rope_theta", 5e5), "rope_scaling", nullptr)), 5e5);
  EXPECT_EQ(theta(With(Llama(), "rope_parameters", {{"rope_type", "default"}, {"rope_theta", 1e6}})), 1e6);
  EXPECT_EQ(theta(With(With(Llama(), "rope_theta", 3e4), "rope_scaling", {{"type", "default"}})), 3e4);
  ExpectRefused(With(Llama(), "rope_scaling", {{"rope_type", "llama3"}, {"factor", 8.0}}), "llama3");
  ExpectRefused(With(Llama(), "rope_scaling", {{"type", "linear"}, {"factor", 2.0}}), "linear");
  ExpectRefused(With(Llama(), "rope_parameters", {{"partial_rotary_factor", 0.5}}), "partial_rotary_factor");
  ExpectRefused(With(Llama(), "rope_parameters", "default"), "rope_parameters");
}

TEST(ConfigTest, EndTokensAreOneOrSeveral) {
  EXPECT_EQ(ModelConfig::FromJson(With(Llama(), "eos_token_id", 7), "file").eos_token_ids,
            std::vector<std::int64_t>{7});
  EXPECT_EQ(ModelConfig::FromJson(With(Llama(), "eos_token_id", {7, 9}), "file").eos_token_ids,
            (std::vector<std::int64_t>{7, 9}));
  ExpectRefused(With(Llama(), "eos_token_id", 100), "eos_token_id");
  ExpectRefused(With(Llama(), "eos_token_id", {-1}), "eos_token_id");
}

TEST(ConfigTest, RefusesWhatItWouldComputeWrongly) {
  ExpectRefused(With(Llama(), "model_type", "qwen2"), "qwen2");
  ExpectRefused(With(Llama(), "architectures", {"LlamaForSequenceClassification"}), "Classification");
  ExpectRefused(With(Llama(), "attention_bias", true), "attention_bias");
  ExpectRefused(With(Llama(), "mlp_bias", true), "mlp_bias");
  ExpectRefused(With(Llama(), "hidden_act", "gelu"), "gelu");
  ExpectRefused(With(Llama(), "quantization_config", {{"bits", 4}}), "quantization_config");
  ExpectRefused(With(Mistral(), "layer_types", {"sliding_attention", "full_attention"}), "layer_types");
}

TEST(ConfigTest, RefusesImpossibleSizes) {
  for (const char* key :
       {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"}) {
    json object = Llama();
    object.erase(key);
    ExpectRefused(object, key);
    for (const json& value : {json(0), json(-1), json(1.5), json("8"), json(true),
                              json(std::int64_t{1} << 40), json(~std::uint64_t{0})}) {
      ExpectRefused(With(Llama(), key, value), key);
    }
  }
  ExpectRefused(With(Llama(), "num_key_value_heads", 3), "num_key_value_heads");
  ExpectRefused(With(Llama(), "hidden_size", 30), "hidden_size");
  ExpectRefused(With(Llama(), "head_dim", 7), "even");
  ExpectRefused(With(Llama(), "rms_norm_eps", 0.0), "rms_norm_eps");
  ExpectRefused(With(Llama(), "rope_theta", -1.0), "rope_theta");
  ExpectRefused(With(Llama(), "tie_word_embeddings", "yes"), "tie_word_embeddings");
  ExpectRefused(json::array(), "object");
}

TEST(ConfigTest, WrittenAndReadAgain) {
  json object = With(With(Mistral(), "sliding_window", 16), "rope_theta", 1e6);
  object["eos_token_id"] = {2, 5};
  object["head_dim"] = 10;
  object["tie_word_embeddings"] = true;
  const ModelConfig config = ModelConfig::FromJson(object, "file");
  const ModelConfig again = ModelConfig::FromJson(config.ToJson(), "file");
  EXPECT_EQ(again.ToJson(), config.ToJson());
  EXPECT_EQ(again.sliding_window, 16);
  EXPECT_EQ(again.rope_theta, 1e6);
  EXPECT_EQ(again.head_dim, 10);
  EXPECT_EQ(again.eos_token_ids, (std::vector<std::int64_t>{2, 5}));
  EXPECT_TRUE(again.tie_word_embeddings);
  const ModelConfig open_window = ModelConfig::FromJson(With(Mistral(), "sliding_window", nullptr), "file");
  EXPECT_EQ(ModelConfig::FromJson(open_window.ToJson(), "file").sliding_window, 0);
}

// By hand: 2 layers of (32*32 + 2 * 32*16 + 32*32) + 3 * 32*48 + 2 * 32, two tables of 100*32, one norm.
TEST(ConfigTest, CountsParameters) {
  EXPECT_EQ(ModelConfig::FromJson(Llama(), "file").ParameterCount(), 2 * (3072 + 4608 + 64) + 6400 + 32);
  EXPECT_EQ(ModelConfig::FromJson(With(Llama(), "tie_word_embeddings", true), "file").ParameterCount(),
            2 * (3072 + 4608 + 64) + 3200 + 32);
}

}  // namespace
}  // namespace plural::trainer
