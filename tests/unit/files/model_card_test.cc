// What a trained folder says about its use.
#include "trainer/files/model_card.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "trainer/base/error.h"
#include "trainer/base/file_io.h"

namespace plural::trainer {
namespace {

namespace fs = std::filesystem;

class ModelCardTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::path(::testing::TempDir()) / "model_card_test";
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  fs::path folder_;
  const Training training_ = {
      .method = "peft",
      .possibilities = 4,
      .begin_tokens = {1},
      .source_format = "dialogue",
      .template_json = R"({"name": "t", "format": "dialogue", "speakers": {"a": "\"A\": ", "b": "B: "},
                           "prompt": "{context}", "prompt_with_number": "{context}\n\u00fc #{k}:"})",
      .tokenizer_name = "tokenizer.json",
      .tokenizer_sha256 = "abc"};
};

TEST_F(ModelCardTest, TrainingIsReadAgain) {
  const auto files = CardFiles(training_, "base", {2, 3});
  EXPECT_EQ(files.size(), 2u);  // no chat template
  EXPECT_FALSE(ReadTraining(folder_).has_value());
  WriteFileDurably(folder_ / kTrainingFile, files.at(kTrainingFile));
  const std::optional<Training> read = ReadTraining(folder_);
  ASSERT_TRUE(read.has_value());
  EXPECT_EQ(CardFiles(*read, "base", {2, 3}), files);
  EXPECT_EQ(read->possibilities, 4);
  EXPECT_EQ(read->begin_tokens, training_.begin_tokens);
}

TEST_F(ModelCardTest, HowItWasTrainedIsKeptByAnExport) {
  Training trained = training_;
  trained.trained_json = R"({"corpus_sha256": "abc", "base_license": "mit", "steps": 12,
                             "figures": {"validation_perplexity": "3.25"}})";
  const auto files = CardFiles(trained, "base", {2});
  WriteFileDurably(folder_ / kTrainingFile, files.at(kTrainingFile));
  for (const std::string& card :
       {files.at("README.md"), CardFiles(*ReadTraining(folder_), "", {2}).at("README.md")}) {
    for (const char* words : {"license: \"mit\"\n", "* corpus sha256: `abc`\n", "* steps: `12`\n",
                              "* validation perplexity: `3.25`\n"}) {
      EXPECT_NE(card.find(words), std::string::npos) << words << "\n" << card;
    }
  }
  EXPECT_EQ(CardFiles(training_, "base", {2}).at("README.md").find("How it was trained"), std::string::npos);
}

TEST_F(ModelCardTest, LicenceOfTheBase) {
  EXPECT_EQ(LicenseOf(folder_), "");
  for (const auto& [text, expected] : std::vector<std::pair<std::string, std::string>>{
           {"---\nlicense: apache-2.0\ntags: []\n---\n", "apache-2.0"},
           {"---\ntags: []\nlicense: \"mit\" \r\n---\n", "mit"},
           {"---\ntags: []\n---\nlicense: mit\n", ""},
           {"license: mit\n", ""},
           {"---\nlicense:\n---\n", ""}}) {
    WriteFileDurably(folder_ / "README.md", text);
    EXPECT_EQ(LicenseOf(folder_), expected) << text;
  }
}

TEST_F(ModelCardTest, CardHasThePrompt) {
  const std::string card = CardFiles(training_, "base", {2, 3}).at("README.md");
  for (const char* words :
       {"{context}\n\u00fc #{k}:\n",
        R"(prompt = "{context}\n)"
        "\u00fc #{k}:\"\n",
        R"("\"A\": " + question)", "ids = [1] + tokenizer(prompt, add_special_tokens=False)",
        "eos_token_id=[2,3]", "PeftModel.from_pretrained", "from 1 to 4"}) {
    EXPECT_NE(card.find(words), std::string::npos) << words << "\n" << card;
  }
  const std::string merged = CardFiles(training_, "", {2}).at("README.md");
  EXPECT_EQ(merged.find("Peft"), std::string::npos) << merged;
  EXPECT_EQ(merged.find("base_model"), std::string::npos) << merged;
}

TEST_F(ModelCardTest, MethodsWithoutNumbers) {
  Training plain = training_;
  plain.possibilities = 0;
  const std::string card = CardFiles(plain, "base", {2}).at("README.md");
  EXPECT_NE(card.find("prompt = \"{context}\"\n"), std::string::npos) << card;
  EXPECT_EQ(card.find("{k}"), std::string::npos) << card;
  plain.latents = 3;  // which transformers cannot give
  EXPECT_EQ(CardFiles(plain, "base", {2}).at("README.md").find("```python"), std::string::npos);
}

TEST_F(ModelCardTest, ChatTemplateStandsBeside) {
  Training chat = training_;
  chat.source_format = "chat";
  chat.template_json = R"({"name": "chat", "format": "chat", "number": " #{k}", "chat_template": "{{ x }}"})";
  const auto files = CardFiles(chat, "base", {2});
  EXPECT_EQ(files.at("chat_template.jinja"), "{{ x }}");
  EXPECT_NE(files.at("README.md").find(R"(question + " #{k}".replace("{k}", str(k)))"), std::string::npos);
}

TEST_F(ModelCardTest, ARevisionStandsByItself) {
  const std::string card = CardFiles(training_, "ORG/NAME@v1", {2}).at("README.md");
  EXPECT_NE(card.find("base_model: \"ORG/NAME\"\n"), std::string::npos) << card;
  EXPECT_NE(card.find("from_pretrained(\"ORG/NAME\", revision=\"v1\")"), std::string::npos) << card;
  EXPECT_NE(card.find("LLM(model=\"ORG/NAME\", revision=\"v1\""), std::string::npos) << card;
}

// A run must not end in an error for want of a card.
TEST_F(ModelCardTest, CorporaOfOtherPrograms) {
  for (const char* text : {"", "{}", "[1]", "{\"name\": 3}", "no JSON"}) {
    Training other = training_;
    other.template_json = text;
    EXPECT_TRUE(CardFiles(other, "base", {}).empty()) << text;
  }
  Training odd = training_;
  odd.template_json = R"({"name": "t", "bos": 3, "speakers": [], "prompt": 7, "number": {}})";
  for (const char* format : {"dialogue", "targets", "chat", "text"}) {
    odd.source_format = format;
    EXPECT_EQ(CardFiles(odd, "base", {}).size(), 2u) << format;
  }
}

TEST_F(ModelCardTest, DamagedFiles) {
  for (const char* text : {"[]", "{\"method\": 3}", "{\"method\": \"peft\"}"}) {
    WriteFileDurably(folder_ / kTrainingFile, text);
    try {
      ReadTraining(folder_);
      ADD_FAILURE() << text;
    } catch (const ExitError& error) {
      EXPECT_EQ(error.Code(), ExitCode::kBadData);
      EXPECT_NE(std::string(error.what()).find("plural.json"), std::string::npos) << error.what();
    }
  }
}

}  // namespace
}  // namespace plural::trainer
