#include "trainer/commands/inspect.h"

#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "data/sha256.h"
#include "tests/unit/support/corpus_file.h"
#include "trainer/base/error.h"
#include "trainer/base/printable.h"
#include "trainer/commands/show_group.h"
#include "trainer/files/safetensors.h"
#include "trainer/method/method.h"

namespace plural::trainer {
namespace {

namespace fs = std::filesystem;

class InspectTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::path(testing::TempDir()) / ("inspect_test_" + std::to_string(getpid()));
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  void Write(const std::string& name, const std::string& text) const {
    std::ofstream(folder_ / name) << text;
  }

  // What inspect prints; `code` is the exit code it ends with.
  std::string Inspect(const InspectOptions& options, ExitCode* code = nullptr) const {
    testing::internal::CaptureStdout();
    ExitCode ended = ExitCode::kDone;
    try {
      RunInspect(options);
    } catch (const ExitError& error) {
      ended = error.Code();
    }
    if (code != nullptr) {
      *code = ended;
    } else {
      EXPECT_EQ(ended, ExitCode::kDone);
    }
    return testing::internal::GetCapturedStdout();
  }

  InspectOptions Options(const fs::path& path) const {
    InspectOptions options;
    options.path = path.string();
    return options;
  }

  fs::path folder_;
};

// The corpus of tests/unit/support/corpus_file.h.
TEST_F(InspectTest, CorpusAsJson) {
  const fs::path path = folder_ / "corpus.h5";
  data::CorpusFile().Write(path);
  InspectOptions options = Options(path);
  options.json = true;
  options.mask = "all_first";
  options.groups = ":1";
  EXPECT_EQ(Inspect(options),
            R"({"id":"g0","prompt_tokens":[1,2],"tails":{"0":[3],"1":[4,5],"2":[4,6]},"responses":[)"
            R"({"tokens":[7,8,9],"weight":1.0,"unlikelihood_mask":[1,1,0]},)"
            R"({"tokens":[7,9],"weight":0.5,"unlikelihood_mask":[1,0]}]})"
            "\n");
}

// Numbers 1 and 2 are kinds "ask" and "tell"; each group has one response of each.
TEST_F(InspectTest, WhatNumbersStandFor) {
  const fs::path path = folder_ / "corpus.h5";
  data::CorpusFile file;
  file.AlignByKinds();
  file.Write(path);
  InspectOptions options = Options(path);
  options.alignment = true;
  options.json = true;
  EXPECT_EQ(
      Inspect(options),
      R"({"possibilities":2,"source":"kinds","encoder":null,"encoder_sha256":null,"responses":4,"numbers":[)"
      R"({"possibility":1,"kind":"ask","nearest":2,"nearest_share":0.5,)"
      R"("first":{"responses":4,"used":2,"suited":2},"best":{"responses":4,"used":2,"suited":2},)"
      R"("examples":[{"affinity":1.0,"group":"g0","text":"hj"},{"affinity":1.0,"group":"g1","text":"ij"}]},)"
      R"({"possibility":2,"kind":"tell","nearest":2,"nearest_share":0.5,)"
      R"("first":{"responses":4,"used":2,"suited":2},"best":{"responses":4,"used":2,"suited":2},)"
      R"("examples":[{"affinity":1.0,"group":"g0","text":"hij"},{"affinity":1.0,"group":"g1","text":"fj"}]}]})"
      "\n");
  options.alignment = false;
  options.groups = ":1";
  EXPECT_TRUE(Inspect(options).find(R"("unlikelihood_mask":[1,0,0],"affinity":[0.0,1.0]})") !=
              std::string::npos);
}

// Both responses of g0 suit number 1 better: the less suited one has to take number 2.
TEST_F(InspectTest, NumbersThatResponsesHaveToTakeAreCounted) {
  const fs::path path = folder_ / "corpus.h5";
  data::CorpusFile file;
  file.AlignByCentres();
  file.Ints<float>("response_affinities") = {0.5F, 0.25F, 0.75F, 0.25F, 0.0F, 1.0F, 0.5F, -0.5F};
  file.Write(path);
  InspectOptions options = Options(path);
  options.json = true;
  options.alignment = true;
  std::string json = Inspect(options);
  const auto has = [&](const std::string& part) { return json.find(part) != std::string::npos; };
  EXPECT_TRUE(has(R"("source":"kmeans","encoder":"little-encoder","encoder_sha256":"bbbb)")) << json;
  EXPECT_TRUE(has(
      R"({"possibility":1,"kind":null,"nearest":3,"nearest_share":0.75,"first":{"responses":4,"used":2,"suited":2})"))
      << json;
  EXPECT_TRUE(has(
      R"({"possibility":2,"kind":null,"nearest":1,"nearest_share":0.25,"first":{"responses":4,"used":2,"suited":1})"))
      << json;
  // The nearest response first.
  EXPECT_TRUE(has(R"("examples":[{"affinity":0.75,"group":"g0","text":"hj"},{"affinity":0.5,)")) << json;
  // Of one response a group the first one need not be the best one.
  options.responses = 1;
  json = Inspect(options);
  EXPECT_TRUE(
      has(R"("first":{"responses":1,"used":1,"suited":1},"best":{"responses":1,"used":1,"suited":1})"));
  options.json = false;
  const std::string text = Inspect(options);
  EXPECT_NE(text.find("possibility numbers 1 to 2 stand for clusters of sentence vectors"),
            std::string::npos);
  EXPECT_NE(text.find("0.75  hj"), std::string::npos) << text;
  options.alignment = false;
  EXPECT_NE(Inspect(options).find("0.75  hj"), std::string::npos);  // the summary has it too
}

TEST_F(InspectTest, ACorpusWithoutAlignmentHasNoMeaningsToShow) {
  const fs::path path = folder_ / "corpus.h5";
  data::CorpusFile().Write(path);
  InspectOptions options = Options(path);
  options.alignment = true;
  ExitCode code = ExitCode::kDone;
  EXPECT_EQ(Inspect(options, &code), "");
  EXPECT_EQ(code, ExitCode::kBadData);
  options.alignment = false;
  EXPECT_EQ(Inspect(options).find("stand for"), std::string::npos);
}

TEST_F(InspectTest, UnknownMaskIsAUsageError) {
  const fs::path path = folder_ / "corpus.h5";
  data::CorpusFile().Write(path);
  InspectOptions options = Options(path);
  options.mask = "first";
  ExitCode code = ExitCode::kDone;
  EXPECT_EQ(Inspect(options, &code), "");
  EXPECT_EQ(code, ExitCode::kUsage);
}

TEST_F(InspectTest, CorpusForPeople) {
  const fs::path path = folder_ / "corpus.h5";
  data::CorpusFile().Write(path);
  const std::string text = Inspect(Options(path));
  // (1 2 3 | 7 8 9), (1 2 3 | 7 9), (2 3 | 8 9), (2 3 | 5 9): 19 tokens. A row is a distinct proper prefix:
  // 1, 12, 123, 1237, 12378 and 2, 23, 238, 235: 9. otoft has the first and the third: 10 tokens, 5 + 3 rows.
  // cvf has a latent before each response, 23 tokens and 8 + 6 rows, and a query behind each whole sequence,
  // which predicts it: 27 tokens and 9 + 8 rows.
  for (const char* line : {"gem, otmft, pretrain           2               19           9   2.11x\n",
                           "otoft                          2               10           8   1.25x\n",
                           "cvf                            2               50          31   1.61x\n"}) {
    EXPECT_NE(text.find(line), std::string::npos) << text;
  }
  EXPECT_NE(text.find("  response 0  [[h]]ij"), std::string::npos) << text;  // content_first: bit 0
  EXPECT_NE(text.find("(weight 0.5)"), std::string::npos) << text;
  EXPECT_EQ(text.find("distribution_matching"), std::string::npos) << text;  // not of format targets
}

// Of the table of methods those that the corpus is for.
TEST_F(InspectTest, EveryMethodIsShown) {
  const fs::path path = folder_ / "corpus.h5";
  data::CorpusFile file;
  file.attributes["source_format"] = "targets";
  file.Write(path);
  const std::string text = Inspect(Options(path));
  for (const Method* method : Methods()) {
    EXPECT_NE(text.find(method->name), std::string::npos) << method->name << "\n" << text;
  }
}

TEST_F(InspectTest, ControlCharactersDoNotReachTheTerminal) {
  EXPECT_EQ(Printable("a\nb\tc\033[2Jd\r\x7f"), "a\\nb\\tc\\x1b[2Jd\\x0d\\x7f");
  for (const char* text : {"\xC3\xA9", "\xE2\x82\xAC", "\xF0\x9F\x98\x80"}) EXPECT_EQ(Printable(text), text);
  EXPECT_EQ(Printable("a\xE6"), "a\\xe6");
  EXPECT_EQ(Printable("\xC2\x9B"
                      "2J\xED\xA0\x80\xC0\x8A"),
            "\\xc2\\x9b2J\\xed\\xa0\\x80\\xc0\\x8a");
}

TEST_F(InspectTest, AdapterFolder) {
  Write("adapter_config.json", R"({"peft_type": "LORA", "r": 16, "target_modules": ["q_proj"]})");
  WriteSafetensors(folder_ / "adapter_model.safetensors", {{"a.lora_A.weight", at::zeros({2, 3})}});
  const std::string text = Inspect(Options(folder_));
  EXPECT_NE(text.find("r: 16"), std::string::npos) << text;
  EXPECT_NE(text.find("F32  [2, 3]  a.lora_A.weight"), std::string::npos) << text;
}

TEST_F(InspectTest, CheckpointFolderIsVerified) {
  const WrittenFile file = WriteSafetensors(folder_ / "trainable.safetensors", {{"w", at::zeros({4})}});
  const auto manifest = [&](const std::string& name, const std::string& sha256) {
    Write("manifest.json", R"({"step": 20, "files": {")" + name + R"(": {"size_bytes": )" +
                               std::to_string(file.size_bytes) + R"(, "sha256": ")" + sha256 + R"("}}})");
  };
  manifest("trainable.safetensors", file.sha256);
  const std::string text = Inspect(Options(folder_));
  EXPECT_NE(text.find("step 20"), std::string::npos) << text;
  EXPECT_NE(text.find("ok  " + file.sha256), std::string::npos) << text;
  EXPECT_NE(text.find("[4]  w"), std::string::npos) << text;

  ExitCode code = ExitCode::kDone;
  manifest("trainable.safetensors", std::string(64, '0'));
  EXPECT_NE(Inspect(Options(folder_), &code).find("BAD"), std::string::npos);
  EXPECT_EQ(code, ExitCode::kBadData);

  manifest("missing.safetensors", file.sha256);
  EXPECT_NE(Inspect(Options(folder_), &code).find("BAD: is missing"), std::string::npos);
  EXPECT_EQ(code, ExitCode::kBadData);

  manifest("../trainable.safetensors", file.sha256);
  Inspect(Options(folder_), &code);
  EXPECT_EQ(code, ExitCode::kBadData);
}

TEST_F(InspectTest, OtherFoldersAreRefused) {
  ExitCode code = ExitCode::kDone;
  Inspect(Options(folder_), &code);
  EXPECT_EQ(code, ExitCode::kMissingInput);
}

}  // namespace
}  // namespace plural::trainer
