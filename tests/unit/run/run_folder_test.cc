#include "trainer/run/run_folder.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <optional>

#include "trainer/base/error.h"
#include "trainer/base/file_io.h"

namespace plural::trainer {
namespace {
namespace fs = std::filesystem;

class RunFolderTest : public ::testing::Test {
 protected:
  RunFolderTest() {
    std::string pattern = (fs::temp_directory_path() / "plural-run-XXXXXX").string();
    base_ = mkdtemp(pattern.data());
    std::ofstream(base_ / "r.yaml") << "name: one\nmethod: otmft\nmodel: {path: m}\ndata: {train: c.h5}\n";
  }
  ~RunFolderTest() override { fs::remove_all(base_); }

  Recipe Load(std::vector<std::string> overrides = {}) const {
    overrides.push_back("run.dir=" + (base_ / "runs").string());
    return LoadRecipe(base_ / "r.yaml", overrides);
  }
  // The code and text with which a second start is refused.
  static std::optional<ExitError> Refusal(const Recipe& recipe) {
    try {
      RunFolder folder(recipe);
    } catch (const ExitError& error) {
      return error;
    }
    return std::nullopt;
  }

  fs::path base_;
};

TEST_F(RunFolderTest, WritesTheResolvedRecipe) {
  const Recipe recipe = Load();
  const RunFolder folder(recipe);
  EXPECT_EQ(ReadFile(RunPaths(recipe).RecipeFile()), recipe.ResolvedYaml());
  EXPECT_TRUE(fs::is_directory(RunPaths(recipe).Logs()));
}

TEST_F(RunFolderTest, OneProcessAtATime) {
  const Recipe recipe = Load();
  {
    const RunFolder folder(recipe);
    const auto refusal = Refusal(recipe);
    ASSERT_TRUE(refusal);
    EXPECT_EQ(refusal->Code(), ExitCode::kCannotCreate);
    EXPECT_NE(std::string(refusal->what()).find("process " + std::to_string(getpid())), std::string::npos);
  }
  EXPECT_FALSE(Refusal(recipe));
}

TEST_F(RunFolderTest, AnotherRecipeIsRefusedKeyByKey) {
  { const RunFolder folder(Load()); }
  const auto refusal = Refusal(Load({"optimizer.lr=0.5", "train.groups_per_step=7"}));
  ASSERT_TRUE(refusal);
  EXPECT_EQ(refusal->Code(), ExitCode::kBadRecipe);
  const std::string what = refusal->what();
  EXPECT_NE(what.find("optimizer.lr: 0.5"), std::string::npos) << what;
  EXPECT_NE(what.find("train.groups_per_step: 7"), std::string::npos) << what;
  EXPECT_EQ(what.find("seed"), std::string::npos) << what;
  EXPECT_EQ(ReadFile(RunPaths(Load()).RecipeFile()), Load().ResolvedYaml());
}

TEST_F(RunFolderTest, WhatDecidesNothingMayChange) {
  { const RunFolder folder(Load()); }
  const Recipe changed = Load({"checkpoint.every_steps=3", "checkpoint.keep=9", "train.log_every_steps=5",
                               "run.threads=2", "log.tensorboard=true", "log.wandb.project=p"});
  EXPECT_FALSE(Refusal(changed));
  EXPECT_EQ(ReadFile(RunPaths(changed).RecipeFile()), changed.ResolvedYaml());
  EXPECT_EQ(RecipeSha256(changed), RecipeSha256(Load()));
  EXPECT_NE(RecipeSha256(Load({"seed=1"})), RecipeSha256(Load()));
}

TEST_F(RunFolderTest, AFolderThatCannotBeMadeIsNamed) {
  std::ofstream(base_ / "runs") << "a file";
  const auto refusal = Refusal(Load());
  ASSERT_TRUE(refusal);
  EXPECT_EQ(refusal->Code(), ExitCode::kCannotCreate);
  EXPECT_NE(std::string(refusal->what()).find("runs"), std::string::npos);
}

}  // namespace
}  // namespace plural::trainer
