#include "trainer/files/hf_folder.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <nlohmann/json.hpp>

#include "trainer/base/error.h"
#include "trainer/base/file_io.h"
#include "trainer/files/load_model.h"
#include "trainer/files/safetensors.h"

namespace plural::trainer {
namespace {
namespace fs = std::filesystem;
using nlohmann::json;
using Tensors = std::vector<dist::NamedTensor>;

ModelConfig TinyConfig(bool tied) {
  return ModelConfig::FromJson({{"model_type", "llama"},
                                {"vocab_size", 11},
                                {"hidden_size", 8},
                                {"intermediate_size", 12},
                                {"num_hidden_layers", 2},
                                {"num_attention_heads", 2},
                                {"num_key_value_heads", 1},
                                {"tie_word_embeddings", tied}},
                               "tiny");
}

Decoder TinyModel(bool tied = false, std::uint64_t seed = 1) {
  Decoder model(TinyConfig(tied), at::kFloat, at::kCPU);
  model.InitializeRandom(seed);
  return model;
}

const AdapterSettings kAdapter = {2, 4.0, 0.1, {"q_proj", "down_proj", "lm_head"}};

Decoder TinyModelWithAdapter() {
  Decoder model = TinyModel();
  model.AddAdapter(kAdapter, 5);
  for (const dist::NamedTensor& factor : model.AdapterParameters()) {
    factor.tensor.detach().copy_(at::randn(factor.tensor.sizes()));
  }
  return model;
}

void ExpectEqual(const Tensors& found, const Tensors& expected) {
  ASSERT_EQ(found.size(), expected.size());
  for (std::size_t i = 0; i < found.size(); ++i) {
    EXPECT_TRUE(at::equal(found[i].tensor, expected[i].tensor)) << found[i].name;
  }
}

class HfFolderTest : public ::testing::Test {
 protected:
  HfFolderTest() {
    std::string pattern = (fs::temp_directory_path() / "plural-hf-folder-XXXXXX").string();
    root_ = mkdtemp(pattern.data());
    folder_ = root_ / "model";
    fs::create_directory(folder_);
  }
  ~HfFolderTest() override { fs::remove_all(root_); }

  void WriteWeights(const Tensors& tensors, const std::string& name = "model.safetensors") {
    fs::remove(folder_ / name);
    WriteSafetensors(folder_ / name, tensors);
  }
  void WriteIndex(const json& map) {
    WriteFileDurably(folder_ / "model.safetensors.index.json", json({{"weight_map", map}}).dump());
  }
  // The error of loading the folder into a new model; every word must stand in it.
  void ExpectLoadFails(bool tied, ExitCode code, const std::vector<std::string>& words) {
    Decoder model = TinyModel(tied);
    ExpectFails([&] { LoadBaseWeights(model, folder_); }, code, words);
  }
  void ExpectFails(const std::function<void()>& action, ExitCode code,
                   const std::vector<std::string>& words) {
    try {
      action();
      ADD_FAILURE() << "nothing was thrown";
    } catch (const ExitError& error) {
      EXPECT_EQ(error.Code(), code) << error.what();
      for (const std::string& word : words) {
        EXPECT_NE(std::string(error.what()).find(word), std::string::npos) << error.what();
      }
    }
  }

  fs::path root_, folder_;
};

TEST_F(HfFolderTest, SavedModelLoadsAgain) {
  for (const bool tied : {false, true}) {
    const Decoder model = TinyModel(tied);
    WriteFileDurably(root_ / "tokenizer.json", "{}");
    SaveModel(model, folder_, root_);  // replaces the empty folder
    EXPECT_TRUE(fs::exists(folder_ / "tokenizer.json"));
    const Decoder loaded = LoadModel(folder_, "", at::kFloat, at::kCPU);
    ExpectEqual(loaded.BaseParameters(), model.BaseParameters());
    EXPECT_EQ(loaded.Config().ToJson(), model.Config().ToJson());
  }
}

TEST_F(HfFolderTest, ConvertsFromEveryFloatingType) {
  const Decoder model = TinyModel();
  for (const at::ScalarType stored : {at::kDouble, at::kHalf, at::kBFloat16}) {
    Tensors tensors = model.BaseParameters(), expected;
    for (dist::NamedTensor& item : tensors) {
      item.tensor = item.tensor.to(stored);
      expected.push_back({item.name, item.tensor.to(at::kFloat)});
    }
    WriteWeights(tensors);
    Decoder loaded = TinyModel(false, 2);
    LoadBaseWeights(loaded, folder_);
    ExpectEqual(loaded.BaseParameters(), expected);
  }
}

TEST_F(HfFolderTest, NamesWithoutTheWrapperAndOldBuffers) {
  const Decoder model = TinyModel(true);
  Tensors tensors = {{"layers.0.self_attn.rotary_emb.inv_freq", at::ones({2})}};
  for (const dist::NamedTensor& item : model.BaseParameters()) {
    tensors.push_back({item.name.substr(std::string("model.").size()), item.tensor});
  }
  WriteWeights(tensors);
  Decoder loaded = TinyModel(true, 2);
  LoadBaseWeights(loaded, folder_);
  ExpectEqual(loaded.BaseParameters(), model.BaseParameters());
}

TEST_F(HfFolderTest, TiedHeadUnderEitherNameOrBoth) {
  const Decoder model = TinyModel(true);
  Tensors tensors = model.BaseParameters();
  ASSERT_EQ(tensors.front().name, "model.embed_tokens.weight");
  const at::Tensor table = tensors.front().tensor;
  Decoder loaded = TinyModel(true, 2);

  tensors.push_back({"lm_head.weight", table});
  WriteWeights(tensors);
  LoadBaseWeights(loaded, folder_);
  ExpectEqual(loaded.BaseParameters(), model.BaseParameters());

  Tensors only_head(tensors.begin() + 1, tensors.end());
  WriteWeights(only_head);
  loaded.InitializeRandom(2);
  LoadBaseWeights(loaded, folder_);
  ExpectEqual(loaded.BaseParameters(), model.BaseParameters());

  tensors.back().tensor = table + 1;
  WriteWeights(tensors);
  ExpectLoadFails(true, ExitCode::kBadData, {"tie_word_embeddings", "differ"});
}

TEST_F(HfFolderTest, ListsEverythingThatDoesNotFit) {
  Tensors tensors = TinyModel().BaseParameters();
  tensors.erase(tensors.begin());
  tensors.back().tensor = at::zeros({3, 8});
  tensors.push_back({"model.layers.7.extra", at::zeros({1})});
  tensors[0].tensor = at::zeros(tensors[0].tensor.sizes(), at::kInt);
  WriteWeights(tensors);
  ExpectLoadFails(false, ExitCode::kBadData,
                  {"1 missing: model.embed_tokens.weight", "1 unexpected: model.layers.7.extra",
                   "2 mismatched", "lm_head.weight (file [3, 8], model [11, 8])", "dtype Int"});
  WriteWeights({});
  ExpectLoadFails(false, ExitCode::kBadData, {"21 missing", "and 18 more"});
}

TEST_F(HfFolderTest, RefusesATransposedTensor) {
  Tensors tensors = TinyModel().BaseParameters();
  const auto found = std::find_if(tensors.begin(), tensors.end(), [](const dist::NamedTensor& item) {
    return item.name == "model.layers.1.mlp.down_proj.weight";
  });
  ASSERT_NE(found, tensors.end());
  found->tensor = found->tensor.t().contiguous();
  WriteWeights(tensors);
  ExpectLoadFails(false, ExitCode::kBadData, {found->name + " (file [12, 8], model [8, 12])"});
}

TEST_F(HfFolderTest, RefusesValuesThatAreNotFinite) {
  Tensors tensors = TinyModel().BaseParameters();
  tensors[3].tensor[1][2] = std::nan("");
  WriteWeights(tensors);
  ExpectLoadFails(false, ExitCode::kBadData, {tensors[3].name, "NaN"});
  tensors = TinyModel().BaseParameters();
  tensors[3].tensor = tensors[3].tensor.to(at::kDouble);
  tensors[3].tensor[0][0] = 1e300;  // infinite once it is fp32
  WriteWeights(tensors);
  ExpectLoadFails(false, ExitCode::kBadData, {tensors[3].name, "infinite"});
}

TEST_F(HfFolderTest, FoldersWithoutWeights) {
  ExpectLoadFails(false, ExitCode::kMissingInput, {"neither model.safetensors nor"});
  WriteFileDurably(folder_ / "pytorch_model.bin", "x");
  ExpectLoadFails(false, ExitCode::kMissingInput, {"pytorch_model.bin", "pickle"});
  ExpectFails([&] { LoadModel(root_ / "absent", "", at::kFloat, at::kCPU); }, ExitCode::kMissingInput,
              {"absent"});
  folder_ = root_ / "nowhere";
  ExpectLoadFails(false, ExitCode::kMissingInput, {"not a folder"});
}

TEST_F(HfFolderTest, Shards) {
  const Decoder model = TinyModel();
  const Tensors all = model.BaseParameters();
  const Tensors first(all.begin(), all.begin() + 5), second(all.begin() + 5, all.end());
  json map;
  for (const auto& item : first) map[item.name] = "model-1.safetensors";
  for (const auto& item : second) map[item.name] = "model-2.safetensors";
  WriteWeights(first, "model-1.safetensors");
  WriteWeights(second, "model-2.safetensors");
  WriteIndex(map);
  Decoder loaded = TinyModel(false, 2);
  LoadBaseWeights(loaded, folder_);
  ExpectEqual(loaded.BaseParameters(), all);

  // Writers disagree on what total_size counts, and folders are published with stale ones.
  const json index = {{"metadata", {{"total_size", 1}}}, {"weight_map", map}};
  WriteFileDurably(folder_ / "model.safetensors.index.json", index.dump());
  LoadBaseWeights(loaded, folder_);
  const auto whole = fs::file_size(folder_ / "model-2.safetensors");
  fs::resize_file(folder_ / "model-2.safetensors", whole - 1);
  ExpectLoadFails(false, ExitCode::kBadData, {"model-2.safetensors", "tensor '", "truncated"});
  WriteWeights(second, "model-2.safetensors");

  const std::string name = all[0].name;
  for (const char* bad : {"../model-1.safetensors", "/model-1.safetensors", "a/b.safetensors", ".safetensors",
                          "model-1.bin", "", "model-1.safetensors\n"}) {
    json wrong = map;
    wrong[name] = bad;
    WriteIndex(wrong);
    ExpectLoadFails(false, ExitCode::kBadData, {"index.json", name, "plain name"});
  }
  json wrong = map;
  wrong[name] = 7;
  WriteIndex(wrong);
  ExpectLoadFails(false, ExitCode::kBadData, {"plain name"});
  wrong = map;
  wrong.erase(name);
  WriteIndex(wrong);
  ExpectLoadFails(false, ExitCode::kBadData, {"does not list tensor '" + name});
  wrong = map;
  wrong["other"] = "model-1.safetensors";
  WriteIndex(wrong);
  ExpectLoadFails(false, ExitCode::kBadData, {"'other'", "not there"});
  wrong = map;
  wrong[name] = "model-2.safetensors";
  WriteIndex(wrong);
  ExpectLoadFails(false, ExitCode::kBadData, {name, "is in model-1.safetensors too"});
  WriteFileDurably(folder_ / "model.safetensors.index.json", "{\"weight_map\":{\"a\":\"x\",\"a\":\"y\"}}");
  ExpectLoadFails(false, ExitCode::kBadData, {"twice"});
  WriteFileDurably(folder_ / "model.safetensors.index.json", "{}");
  ExpectLoadFails(false, ExitCode::kBadData, {"weight_map"});
  WriteIndex(map);
  fs::remove(folder_ / "model-2.safetensors");
  ExpectLoadFails(false, ExitCode::kMissingInput, {"model-2.safetensors"});
  fs::create_symlink("model-2.safetensors", folder_ / "model-2.safetensors");  // a loop
  ExpectLoadFails(false, ExitCode::kMissingInput, {"model-2.safetensors"});
}

TEST_F(HfFolderTest, WeightsThatAreNotAsTheyWereWrittenAreRefused) {
  SaveModel(TinyModel(), folder_, "");
  const fs::path path = folder_ / "model.safetensors";
  const std::string whole = ReadFile(path);
  std::string damaged = whole;
  damaged[damaged.size() - 5] = static_cast<char>(damaged[damaged.size() - 5] ^ 1);  // another finite number
  WriteFileDurably(path, damaged);
  ExpectLoadFails(false, ExitCode::kBadData, {"model.safetensors", "not as it was written", "weights.json"});
  WriteFileDurably(folder_ / "weights.json", "{}");
  ExpectLoadFails(false, ExitCode::kBadData, {"weights.json"});
  fs::remove(folder_ / "weights.json");  // changed on purpose
  Decoder model = TinyModel();
  LoadBaseWeights(model, folder_);
}

TEST_F(HfFolderTest, FingerprintFollowsNamesAndBytes) {
  const Tensors tensors = TinyModel().BaseParameters();
  WriteWeights(tensors);
  const std::string first = WeightsFingerprint(folder_);
  EXPECT_EQ(first.size(), 64u);
  WriteFileDurably(folder_ / "notes.txt", "not a weight");
  EXPECT_EQ(WeightsFingerprint(folder_), first);
  Tensors changed = tensors;
  changed[2].tensor = changed[2].tensor + 1;
  WriteWeights(changed);
  EXPECT_NE(WeightsFingerprint(folder_), first);
}

TEST_F(HfFolderTest, TokenizerHashStaysInsideTheFolder) {
  WriteFileDurably(folder_ / "tokenizer.model", "abc");
  WriteFileDurably(root_ / "secret", "abc");
  EXPECT_EQ(TokenizerSha256(folder_, "tokenizer.model"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  for (const char* name : {"", ".", "..", "absent", "../secret"})
    EXPECT_EQ(TokenizerSha256(folder_, name), "");
}

TEST_F(HfFolderTest, SavedAdapterLoadsAgain) {
  const Decoder model = TinyModelWithAdapter();
  SaveModel(model, folder_, "");
  SaveAdapter(model, root_ / "adapter", "some/base");
  const SafetensorsReader file(root_ / "adapter" / "adapter_model.safetensors");
  EXPECT_TRUE(file.Entries().contains("base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight"));
  EXPECT_TRUE(file.Entries().contains("base_model.model.model.layers.0.mlp.down_proj.lora_B.weight"));
  EXPECT_TRUE(file.Entries().contains("base_model.model.lm_head.lora_A.weight"));
  EXPECT_EQ(file.Entries().size(), 10u);

  const AdapterSettings settings = ReadAdapterConfig(root_ / "adapter");
  EXPECT_EQ(settings.rank, 2);
  EXPECT_EQ(settings.alpha, 4.0);
  EXPECT_EQ(settings.dropout, 0.1);
  EXPECT_EQ(settings.targets, kAdapter.targets);
  const Decoder loaded = LoadModel(folder_, root_ / "adapter", at::kFloat, at::kCPU);
  ExpectEqual(loaded.AdapterParameters(), model.AdapterParameters());
  for (const dist::NamedTensor& factor : loaded.AdapterParameters())
    EXPECT_FALSE(factor.tensor.requires_grad());
}

TEST_F(HfFolderTest, AdapterMustFitTheModel) {
  const Decoder model = TinyModelWithAdapter();
  SaveAdapter(model, root_ / "adapter", "");
  const auto load_into = [&](const AdapterSettings& settings) {
    Decoder other = TinyModel();
    other.AddAdapter(settings, 1);
    LoadAdapterWeights(other, root_ / "adapter");
  };
  load_into(kAdapter);
  ExpectFails([&] { load_into({4, 8.0, 0.0, kAdapter.targets}); }, ExitCode::kBadData, {"rank 2"});
  ExpectFails([&] { load_into({2, 8.0, 0.0, kAdapter.targets}); }, ExitCode::kBadData, {"alpha 4"});
  ExpectFails([&] { load_into({2, 4.0, 0.0, {"q_proj"}}); }, ExitCode::kBadData, {"6 unexpected"});
  ExpectFails(
      [&] {
        load_into({2, 4.0, 0.0, {"q_proj", "k_proj", "down_proj", "lm_head"}});
      },
      ExitCode::kBadData, {"4 missing"});
}

// PEFT stores the base weight of an adapted head beside its factors.
TEST_F(HfFolderTest, StoredBaseWeightsMustBeTheModels) {
  const Decoder model = TinyModelWithAdapter();
  SaveAdapter(model, root_ / "adapter", "");
  const fs::path file = root_ / "adapter" / "adapter_model.safetensors";
  const auto load_with = [&](const at::Tensor& head) {
    Tensors tensors = {{"base_model.model.lm_head.base_layer.weight", head}};
    for (const auto& factor : model.AdapterParameters()) {
      tensors.push_back({"base_model.model." + factor.name, factor.tensor});
    }
    for (const char* name : {"adapter_model.safetensors", "weights.json"})
      fs::remove(root_ / "adapter" / name);
    WriteSafetensors(file, tensors);
    Decoder other = TinyModel();
    other.AddAdapter(kAdapter, 1);
    LoadAdapterWeights(other, root_ / "adapter");
    ExpectEqual(other.AdapterParameters(), model.AdapterParameters());
  };
  load_with(model.Head().linear.weight_OI);
  load_with(model.Head().linear.weight_OI.to(at::kBFloat16));  // the adapter of a rounded copy
  ExpectFails([&] { load_with(model.Head().linear.weight_OI + 0.01); }, ExitCode::kBadData,
              {"lm_head", "base model"});
  ExpectFails([&] { load_with(at::zeros({12, 8})); }, ExitCode::kBadData, {"lm_head", "base model"});
}

TEST_F(HfFolderTest, AdapterFeaturesOutsideTheListAreRefusedByName) {
  const json good = {{"peft_type", "LORA"},
                     {"task_type", "CAUSAL_LM"},
                     {"r", 2},
                     {"lora_alpha", 4},
                     {"lora_dropout", 0.0},
                     {"target_modules", {"lm_head", "q_proj"}},
                     {"bias", "none"},
                     {"base_model_name_or_path", "x"},
                     {"peft_version", "0.21.2"},
                     {"megatron_core", "megatron.core"},
                     {"use_rslora", false},
                     {"rank_pattern", json::object()},
                     {"loftq_config", json::object()},
                     {"some_feature_of_tomorrow", nullptr}};
  const auto read = [&](const json& config) {
    WriteFileDurably(folder_ / "adapter_config.json", config.dump());
    return ReadAdapterConfig(folder_);
  };
  EXPECT_EQ(read(good).targets, (std::vector<std::string>{"q_proj", "lm_head"}));
  const std::vector<std::pair<const char*, json>> refused = {
      {"peft_type", "ADALORA"},
      {"peft_type", nullptr},
      {"task_type", "SEQ_CLS"},
      {"r", 0},
      {"r", 4097},
      {"r", 2.5},
      {"r", "2"},
      {"lora_alpha", "4"},
      {"lora_alpha", 0},
      {"lora_dropout", 1.5},
      {"target_modules", "all-linear"},
      {"target_modules", ".*_proj"},
      {"target_modules", json::array()},
      {"target_modules", {"q_proj", "embed_tokens"}},
      {"target_modules", {3}},
      {"bias", "all"},
      {"use_rslora", true},
      {"use_dora", true},
      {"fan_in_fan_out", true},
      {"modules_to_save", {"lm_head"}},
      {"rank_pattern", {{"q_proj", 4}}},
      {"alpha_pattern", {{"q_proj", 4}}},
      {"layers_to_transform", {0}},
      {"init_lora_weights", "pissa"},
      {"some_feature_of_tomorrow", 1},
  };
  for (const auto& [key, value] : refused) {
    json config = good;
    config[key] = value;
    ExpectFails([&] { read(config); }, ExitCode::kBadData, {"adapter_config.json", key});
  }
  ExpectFails([&] { read(json::array()); }, ExitCode::kBadData, {"object"});
  fs::remove(folder_ / "adapter_config.json");
  ExpectFails([&] { ReadAdapterConfig(folder_); }, ExitCode::kMissingInput, {"adapter_config.json"});
}

}  // namespace
}  // namespace plural::trainer
