// What a PEFT config says of a model's layers, and that one which would take too long is refused.
#include "trainer/files/peft_config.h"

#include <ATen/core/Tensor.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "trainer/base/error.h"
#include "trainer/base/file_io.h"

namespace plural::trainer {
namespace {
namespace fs = std::filesystem;
using nlohmann::json;
using nlohmann::ordered_json;

class PeftConfigTest : public ::testing::Test {
 protected:
  PeftConfigTest() {
    std::string pattern = (fs::temp_directory_path() / "plural-peft-config-XXXXXX").string();
    folder_ = mkdtemp(pattern.data());
  }
  ~PeftConfigTest() override { fs::remove_all(folder_); }

  AdapterPlan Plan(const ordered_json& changes) {
    ordered_json config = {{"peft_type", "LORA"}, {"r", 8}, {"target_modules", "all-linear"}};
    config.update(changes);
    WriteFileDurably(folder_ / "adapter_config.json", config.dump());
    return PeftConfig(folder_).PlanFor(model_);
  }

  // Ranks by the layer's path, without "model.layers.".
  std::map<std::string, std::int64_t> Ranks(const ordered_json& changes) {
    std::map<std::string, std::int64_t> ranks;
    for (const AdaptedLayer& layer : Plan(changes).layers) ranks[layer.path.substr(13)] = layer.rank;
    return ranks;
  }

  void ExpectRefused(const ordered_json& changes, const std::string& what) {
    try {
      Plan(changes);
      ADD_FAILURE() << "accepted; should say " << what;
    } catch (const ExitError& error) {
      EXPECT_EQ(error.Code(), ExitCode::kBadData);
      EXPECT_NE(std::string(error.what()).find(what), std::string::npos) << error.what();
      EXPECT_NE(std::string(error.what()).find("adapter_config.json"), std::string::npos) << error.what();
      EXPECT_LT(std::string(error.what()).size(), 500U);
    }
  }

  Decoder model_{ModelConfig::FromJson({{"model_type", "llama"},
                                        {"vocab_size", 11},
                                        {"hidden_size", 8},
                                        {"intermediate_size", 12},
                                        {"num_hidden_layers", 2},
                                        {"num_attention_heads", 2},
                                        {"num_key_value_heads", 1}},
                                       "tiny"),
                 at::kFloat, at::Device(at::kMeta)};
  fs::path folder_;
};

// `count` entries, each of its own name.
ordered_json Entries(std::size_t count, const std::string& before, const std::string& behind,
                     const json& value) {
  std::string text = "{";
  for (std::size_t i = 0; i < count; ++i) {
    text += (i > 0 ? "," : "") + json(before + std::to_string(i) + behind).dump() + ":" + value.dump();
  }
  return ordered_json::parse(text + "}");
}

// In quadratic time this takes minutes.
TEST_F(PeftConfigTest, ManyObjectsInOneAreReadInLinearTime) {
  std::string many;
  for (int i = 0; i < 100000; ++i) many += (i > 0 ? ",\"l" : "\"l") + std::to_string(i) + "\":{}";
  const auto read = [&](const std::string& key) {
    WriteFileDurably(
        folder_ / "adapter_config.json",
        R"({"peft_type": "LORA", "r": 8, "target_modules": "all-linear", ")" + key + "\": {" + many + "}}");
    return PeftConfig(folder_).PlanFor(model_).layers.size();
  };
  EXPECT_EQ(read("auto_mapping"), 14U);
  try {
    read("rank_pattern");
    ADD_FAILURE() << "accepted";
  } catch (const ExitError& error) {
    EXPECT_NE(std::string(error.what()).find("these are 100000 entries"), std::string::npos) << error.what();
  }
}

TEST_F(PeftConfigTest, TheFirstPatternOfTheFileCounts) {
  const auto ranks = Ranks({{"rank_pattern",
                             {{"v_proj", 1},
                              {".*layers.1.*k_proj", 2},
                              {"^model.layers.0.self_attn.k_proj", 3},
                              {"^self_attn.q_proj", 4},  // of no path
                              {"k_proj|x)|(model.layers.1.mlp.up", 5},
                              {"a.*_proj", 6}}}});
  EXPECT_EQ(ranks.at("0.self_attn.v_proj"), 1);
  EXPECT_EQ(ranks.at("1.self_attn.k_proj"), 2);
  EXPECT_EQ(ranks.at("0.self_attn.k_proj"), 3);
  EXPECT_EQ(ranks.at("0.self_attn.q_proj"), 8);
  EXPECT_EQ(ranks.at("1.mlp.up_proj"), 8);  // the second half of pattern 5 has to reach the end
  EXPECT_EQ(ranks.at("0.mlp.up_proj"), 8);
}

TEST_F(PeftConfigTest, NamesAreRefusedAboveABound) {
  const auto last = [](std::size_t others) {
    ordered_json entries = Entries(others, "layer_", "", 3);
    entries["k_proj"] = 2;
    return ordered_json{{"rank_pattern", std::move(entries)}};
  };
  EXPECT_EQ(Ranks(last(4095)).at("1.self_attn.k_proj"), 2);
  ExpectRefused(last(4096), "4097 entries, at most 4096");
  for (const char* key : {"target_modules", "exclude_modules", "modules_to_save", "layers_pattern"}) {
    ordered_json names = {{"layers_to_transform", 0}, {"target_modules", {"q_proj"}}};
    names[key] = std::vector<std::string>(4097, "q_proj");
    ExpectRefused(names, std::string(key));
    ExpectRefused(names, "4097 entries, at most 4096");
  }
}

TEST_F(PeftConfigTest, ExpressionsAreFewAndShareTheirSteps) {
  // Half of them each; target_modules is one of them here.
  const auto both = [](std::size_t ranks, std::size_t alphas) {
    return ordered_json{{"target_modules", ".*_proj"},
                        {"rank_pattern", Entries(ranks, R"(layers\.)", R"(\..*q_proj)", 2)},
                        {"alpha_pattern", Entries(alphas, R"(.*layers\.)", R"(\..*(q|k)_proj)", 3)}};
  };
  const auto ranks = Ranks(both(128, 127));
  EXPECT_EQ(ranks.at("1.self_attn.q_proj"), 2);
  EXPECT_EQ(ranks.at("1.self_attn.k_proj"), 8);
  ExpectRefused(both(128, 128), "at most 256");
  for (const char* key : {"target_modules", "exclude_modules"}) {
    ExpectRefused({{key, "((a|[a-z.]|.)+)+[!?]"}}, "too many steps");
  }
  ExpectRefused({{"rank_pattern", {{"((a|[a-z.]|.)+)+[!?]", 3}}}}, "too many steps");
}

}  // namespace
}  // namespace plural::trainer
