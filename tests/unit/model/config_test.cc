#include "trainer/model/config.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "trainer/base/error.h"

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
// The smallest config of a family, without keys that it need not have.
json Bare(const char* model_type) {
  return {{"model_type", model_type}, {"vocab_size", 100},      {"hidden_size", 64},
          {"intermediate_size", 48},  {"num_hidden_layers", 8}, {"num_attention_heads", 32}};
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
  EXPECT_EQ(llama.rope, Rope{});
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
  const auto theta = [](const json& object) { return ModelConfig::FromJson(object, "file").rope.theta; };
  EXPECT_EQ(theta(With(With(Llama(), "rope_theta", 5e5), "rope_scaling", nullptr)), 5e5);
  EXPECT_EQ(theta(With(Llama(), "rope_parameters", {{"rope_type", "default"}, {"rope_theta", 1e6}})), 1e6);
  EXPECT_EQ(theta(With(With(Llama(), "rope_theta", 3e4), "rope_scaling", {{"type", "default"}})), 3e4);
  ExpectRefused(With(Llama(), "rope_parameters", {{"partial_rotary_factor", 0.5}}), "partial_rotary_factor");
  ExpectRefused(With(Llama(), "rope_parameters", "default"), "rope_parameters");
  ExpectRefused(With(Llama(), "rope_parameters", {{"full_attention", {{"rope_theta", 1e6}}}}),
                "full_attention");
}

TEST(ConfigTest, RotaryScalingOfBothGenerations) {
  const json scaling = {{"rope_type", "llama3"},
                        {"factor", 8.0},
                        {"low_freq_factor", 1.0},
                        {"high_freq_factor", 4.0},
                        {"original_max_position_embeddings", 8192}};
  const Rope wanted{.theta = 5e5,
                    .scaling = Rope::Scaling::kLlama3,
                    .factor = 8.0,
                    .low_freq_factor = 1.0,
                    .high_freq_factor = 4.0,
                    .original_max_position_embeddings = 8192};
  const auto rope = [](const json& object) { return ModelConfig::FromJson(object, "file").rope; };
  EXPECT_EQ(rope(With(With(Llama(), "rope_theta", 5e5), "rope_scaling", scaling)), wanted);
  EXPECT_EQ(rope(With(Llama(), "rope_parameters", With(scaling, "rope_theta", 5e5))), wanted);
  const Rope linear{.theta = 1e4, .scaling = Rope::Scaling::kLinear, .factor = 2.0};
  EXPECT_EQ(rope(With(Llama(), "rope_scaling", {{"type", "linear"}, {"factor", 2.0}})), linear);

  for (const char* key : {"factor", "low_freq_factor", "high_freq_factor"}) {
    json incomplete = scaling;
    incomplete.erase(key);
    ExpectRefused(With(Llama(), "rope_scaling", incomplete), key);
  }
  ExpectRefused(With(Llama(), "rope_scaling", With(scaling, "high_freq_factor", 1.0)), "high_freq_factor");
  ExpectRefused(With(Llama(), "rope_scaling", {{"rope_type", "yarn"}, {"factor", 4.0}}), "yarn");
  ExpectRefused(With(Bare("phi3"), "rope_scaling", {{"type", "longrope"}}), "longrope");
}

std::string Windows(const ModelConfig& config) {
  std::string text;
  for (std::int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    text += (layer > 0 ? " " : "") + std::to_string(config.WindowOf(layer));
  }
  return text;
}

TEST(ConfigTest, WindowsOfLayers) {
  const auto windows = [](const json& object) { return Windows(ModelConfig::FromJson(object, "file")); };
  EXPECT_EQ(windows(With(Bare("llama"), "sliding_window", 9)), "0 0 0 0 0 0 0 0");
  EXPECT_EQ(windows(With(Bare("mistral"), "sliding_window", 9)), "9 9 9 9 9 9 9 9");
  EXPECT_EQ(windows(With(Bare("phi3"), "sliding_window", 9)), "9 9 9 9 9 9 9 9");
  EXPECT_EQ(windows(Bare("phi3")), "0 0 0 0 0 0 0 0");
  EXPECT_EQ(windows(Bare("gemma2")), "4096 0 4096 0 4096 0 4096 0");
  EXPECT_EQ(windows(With(Bare("gemma3_text"), "sliding_window", 9)), "9 9 9 9 9 0 9 9");
  EXPECT_EQ(windows(With(Bare("gemma3_text"), "sliding_window_pattern", 2)), "4096 0 4096 0 4096 0 4096 0");
  json qwen = With(Bare("qwen2"), "sliding_window", 9);
  EXPECT_EQ(windows(qwen), "0 0 0 0 0 0 0 0");
  qwen["use_sliding_window"] = true;
  EXPECT_EQ(windows(qwen), "0 0 0 0 0 0 0 0") << "28 layers are full";
  EXPECT_EQ(windows(With(qwen, "max_window_layers", 6)), "0 0 0 0 0 0 9 9");
  json types(8, "full_attention");
  types[3] = "sliding_attention";
  EXPECT_EQ(windows(With(qwen, "layer_types", types)), "0 0 0 9 0 0 0 0");
  EXPECT_EQ(windows(With(Bare("gemma2"), "layer_types", types)), "0 0 0 4096 0 0 0 0");
}

TEST(ConfigTest, FamiliesDiffer) {
  const ModelConfig gemma2 = ModelConfig::FromJson(Bare("gemma2"), "file");
  EXPECT_EQ(gemma2.head_dim, 256);
  EXPECT_EQ(gemma2.num_key_value_heads, 4);
  EXPECT_EQ(gemma2.attn_logit_softcapping, 50.0);
  EXPECT_EQ(gemma2.final_logit_softcapping, 30.0);
  EXPECT_EQ(gemma2.AttentionScale(), 1.0 / 16.0);
  EXPECT_EQ(gemma2.norm_weight_offset, 1.0);
  EXPECT_TRUE(gemma2.tie_word_embeddings && gemma2.scaled_embedding && gemma2.output_norms);
  EXPECT_FALSE(gemma2.qk_norm);
  EXPECT_EQ(gemma2.activation, Activation::kGeluTanh);
  EXPECT_EQ(gemma2.pad_token_id, 0);

  // As transformers 4 writes it.
  json object = With(Bare("gemma3_text"), "rope_local_base_freq", 5000.0);
  object["rope_scaling"] = {{"rope_type", "linear"}, {"factor", 8.0}};
  const ModelConfig gemma3 = ModelConfig::FromJson(object, "file");
  EXPECT_EQ(gemma3.RopeOf(0), Rope{.theta = 5000.0});
  EXPECT_EQ(gemma3.RopeOf(5), (Rope{.theta = 1e6, .scaling = Rope::Scaling::kLinear, .factor = 8.0}));
  EXPECT_EQ(gemma3.attn_logit_softcapping, 0.0);
  EXPECT_TRUE(gemma3.qk_norm);

  json gemma = With(Bare("gemma"), "hidden_act", "gelu");
  gemma["hidden_activation"] = nullptr;
  gemma["num_key_value_heads"] = 1;
  EXPECT_EQ(ModelConfig::FromJson(gemma, "file").activation, Activation::kGeluTanh);
  EXPECT_FALSE(ModelConfig::FromJson(gemma, "file").output_norms);

  const ModelConfig qwen2 = ModelConfig::FromJson(Bare("qwen2"), "file");
  EXPECT_TRUE(qwen2.qkv_bias && !qwen2.o_bias && !qwen2.mlp_bias && !qwen2.qk_norm);
  EXPECT_TRUE(qwen2.eos_token_ids.empty());
  const ModelConfig qwen3 = ModelConfig::FromJson(Bare("qwen3"), "file");
  EXPECT_TRUE(qwen3.qk_norm && !qwen3.qkv_bias);
  EXPECT_EQ(qwen3.head_dim, 128);
  EXPECT_TRUE(ModelConfig::FromJson(Bare("phi3"), "file").fused_projections);
  json biased = With(Llama(), "attention_bias", true);
  biased["mlp_bias"] = true;
  const ModelConfig llama = ModelConfig::FromJson(biased, "file");
  EXPECT_TRUE(llama.qkv_bias && llama.o_bias && llama.mlp_bias);
}

TEST(ConfigTest, EveryFamilyIsWrittenAndReadAgain) {
  const Rope linear{.theta = 1e4, .scaling = Rope::Scaling::kLinear, .factor = 2.0};
  for (const char* family :
       {"llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "phi3"}) {
    json object = With(Bare(family), "sliding_window", 9);
    object["use_sliding_window"] = true;
    object["max_window_layers"] = 3;
    ModelConfig config = ModelConfig::FromJson(object, "file");
    config.rope = linear;
    const ModelConfig again = ModelConfig::FromJson(config.ToJson(), "file");
    EXPECT_EQ(again.ToJson(), config.ToJson()) << family;
    EXPECT_EQ(Windows(again), Windows(config)) << family;
    EXPECT_EQ(again.rope, linear) << family;
    EXPECT_EQ(again.sliding_rope, config.sliding_rope) << family;
    EXPECT_EQ(again.ParameterCount(), config.ParameterCount()) << family;
  }
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
  ExpectRefused(With(Llama(), "model_type", "gpt2"), "gemma3_text (Gemma3ForCausalLM)");
  ExpectRefused(With(Llama(), "architectures", {"LlamaForSequenceClassification"}), "Classification");
  ExpectRefused(With(Mistral(), "attention_bias", true), "attention_bias");
  ExpectRefused(With(Mistral(), "mlp_bias", true), "mlp_bias");
  ExpectRefused(With(Llama(), "final_logit_softcapping", 30.0), "final_logit_softcapping");
  ExpectRefused(With(Bare("gemma3_text"), "attn_logit_softcapping", 50.0), "attn_logit_softcapping");
  ExpectRefused(With(Bare("gemma2"), "final_logit_softcapping", -1.0), "final_logit_softcapping");
  ExpectRefused(With(Bare("gemma2"), "hidden_activation", "gelu"), "gelu");
  ExpectRefused(With(Bare("gemma"), "use_bidirectional_attention", true), "use_bidirectional_attention");
  ExpectRefused(With(Bare("gemma3_text"), "rope_parameters", {{"rope_theta", 1e6}}), "sliding_attention");
  ExpectRefused(With(Llama(), "hidden_act", "gelu"), "gelu");
  ExpectRefused(With(Llama(), "quantization_config", {{"bits", 4}}), "quantization_config");
  ExpectRefused(With(Mistral(), "layer_types", {"sliding_attention", "full_attention"}), "layer_types");
  ExpectRefused(With(Bare("gemma2"), "layer_types", {"full_attention"}), "layer_types");
  ExpectRefused(With(Bare("gemma2"), "layer_types", json::array({1, 2, 3, 4, 5, 6, 7, 8})), "layer_types");
  ExpectRefused(With(Bare("qwen2"), "layer_types", json(8, "sliding_attention")), "sliding_window");
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
  EXPECT_EQ(again.rope.theta, 1e6);
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
  // As published: 2,614,341,888, 494,032,768 and 596,049,920.
  const auto count = [](const char* family, std::vector<std::int64_t> sizes) {
    json object = Bare(family);
    std::size_t i = 0;
    for (const char* key : {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
                            "num_attention_heads", "num_key_value_heads"}) {
      object[key] = sizes[i++];
    }
    object["tie_word_embeddings"] = true;
    return ModelConfig::FromJson(object, "file").ParameterCount();
  };
  EXPECT_EQ(count("gemma2", {256000, 2304, 9216, 26, 8, 4}), 2614341888);
  EXPECT_EQ(count("qwen2", {151936, 896, 4864, 24, 14, 2}), 494032768);
  EXPECT_EQ(count("qwen3", {151936, 1024, 3072, 28, 16, 8}), 596049920);
}

TEST(ModelConfigEnds, NewOnesComeFirstEachOnceAndWithinTheVocabulary) {
  ModelConfig config;
  config.vocab_size = 10;
  config.eos_token_ids = {2, 3};
  config.AddEndTokens(std::vector<std::int64_t>{7, 3, 10, -1, 7});
  EXPECT_EQ(config.eos_token_ids, (std::vector<std::int64_t>{7, 3, 2}));
}

TEST(ModelConfigEnds, ThoseOfGenerationConfigCountToo) {
  std::string pattern = (std::filesystem::temp_directory_path() / "plural-ends-XXXXXX").string();
  const std::filesystem::path folder = mkdtemp(pattern.data());
  const auto with = [&](const std::string& text) {
    std::ofstream(folder / "generation_config.json") << text;
    return GenerationEndTokens(folder);
  };
  EXPECT_TRUE(GenerationEndTokens(folder).empty());
  EXPECT_EQ(with(R"({"eos_token_id": 5})"), (std::vector<std::int64_t>{5}));
  EXPECT_EQ(with(R"({"eos_token_id": [5, 6]})"), (std::vector<std::int64_t>{5, 6}));
  EXPECT_TRUE(with(R"({"eos_token_id": null})").empty());
  EXPECT_TRUE(with(R"({"temperature": 0.6})").empty());
  EXPECT_THROW(with("{"), ExitError);
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace plural::trainer
