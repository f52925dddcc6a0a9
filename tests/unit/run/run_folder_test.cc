#include "trainer/run/run_folder.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/ones.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <fstream>
#include <optional>
#include <set>

#include "trainer/base/error.h"
#include "trainer/base/file_io.h"
#include "trainer/files/safetensors.h"
#include "trainer/files/weight_manifest.h"

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
                               "run.threads=2", "run.deterministic=true", "optimizer.sharding=on",
                               "log.tensorboard=true", "log.wandb.project=p", "resume=require"});
  EXPECT_FALSE(Refusal(changed));
  EXPECT_EQ(ReadFile(RunPaths(changed).RecipeFile()), changed.ResolvedYaml());
  EXPECT_EQ(RecipeSha256(changed), RecipeSha256(Load()));
  EXPECT_NE(RecipeSha256(Load({"seed=1"})), RecipeSha256(Load()));
}

TEST_F(RunFolderTest, AnotherSpellingOfAPathIsTheSameRecipe) {
  std::ofstream(base_ / "c.h5") << "a corpus";
  fs::create_directory(base_ / "sub");
  fs::create_symlink("c.h5", base_ / "link.h5");
  const auto of = [&](const std::string& path) { return Load({"data.train=" + (base_ / path).string()}); };
  { const RunFolder folder(of("c.h5")); }
  for (const char* path : {"sub/../c.h5", "link.h5", "./c.h5"}) {
    EXPECT_FALSE(Refusal(of(path))) << path;
    EXPECT_EQ(RecipeSha256(of(path)), RecipeSha256(of("c.h5"))) << path;
  }
  ASSERT_TRUE(Refusal(of("sub/c.h5")));
  EXPECT_NE(std::string(Refusal(of("sub/c.h5"))->what()).find("data.train"), std::string::npos);
  // While the run lives that is what is said, however its corpus is spelled.
  const RunFolder folder(of("c.h5"));
  ASSERT_TRUE(Refusal(of("link.h5")));
  EXPECT_EQ(Refusal(of("link.h5"))->Code(), ExitCode::kCannotCreate);
}

TEST_F(RunFolderTest, WhatAKilledStartLeftIsRemoved) {
  { const RunFolder folder(Load()); }
  const RunPaths paths(Load());
  fs::create_directories(paths.root / ".tmp-adapter-0123");
  fs::create_directories(paths.root / ".trash-adapter-0123");
  fs::create_directories(paths.Profiles() / ".tmp-rank-00000.json-0123");
  std::ofstream(paths.root / ".tmp-adapter-0123/adapter_model.safetensors") << "half";
  std::ofstream(paths.root / ".tmp-recipe.yaml-0123") << "half";
  std::ofstream(paths.root / "notes.txt") << "kept";
  { const RunFolder folder(Load()); }
  std::set<std::string> names;
  for (const auto& entry : fs::recursive_directory_iterator(paths.root))
    names.insert(entry.path().filename());
  EXPECT_EQ(names, (std::set<std::string>{"recipe.yaml", "run.lock", "log", "profile", "notes.txt"}));
}

// What would be written through them is not the run's.
TEST_F(RunFolderTest, LinksAndPipesInPlaceOfItsFilesAreRefused) {
  { const RunFolder folder(Load()); }
  const RunPaths paths(Load());
  std::ofstream(base_ / "victim") << "kept";
  for (const fs::path& path : {paths.Lock(), paths.RecipeFile(), paths.Metrics(), paths.LogOf(0)}) {
    const bool there = fs::exists(path);
    const fs::path aside = base_ / "aside";
    if (there) fs::rename(path, aside);
    for (const bool pipe : {false, true}) {
      if (pipe) {
        ASSERT_EQ(mkfifo(path.c_str(), 0600), 0);
      } else {
        fs::create_symlink(base_ / "victim", path);
      }
      const auto refusal = Refusal(Load());
      ASSERT_TRUE(refusal) << path;
      EXPECT_EQ(refusal->Code(), ExitCode::kCannotCreate);
      EXPECT_NE(std::string(refusal->what()).find(path.string() + ": is no regular file"), std::string::npos);
      EXPECT_EQ(ReadFile(base_ / "victim"), "kept");
      fs::remove(path);
    }
    if (there) fs::rename(aside, path);
  }
  EXPECT_FALSE(Refusal(Load()));
  // Checkpoints may lie on another disk.
  fs::create_directory(base_ / "disk");
  fs::create_directory_symlink(base_ / "disk", paths.Checkpoints());
  EXPECT_FALSE(Refusal(Load()));
}

TEST_F(RunFolderTest, AResultIsThereWhenItsWeightsAre) {
  const RunPaths paths(Load());
  std::string damage;
  EXPECT_FALSE(HasResult(paths, damage));
  fs::create_directories(paths.Result());
  EXPECT_FALSE(HasResult(paths, damage));
  EXPECT_EQ(damage, "");
  std::ofstream(paths.Result() / "README.md") << "no weights";
  EXPECT_FALSE(HasResult(paths, damage));
  EXPECT_NE(damage, "");

  const fs::path weights = paths.Result() / "adapter_model.safetensors";
  const WrittenFile written = WriteSafetensors(weights, {{"a", at::ones({3})}});
  damage.clear();
  EXPECT_TRUE(HasResult(paths, damage)) << damage;  // as an earlier version left it
  WriteWeightManifest(paths.Result(), {{"adapter_model.safetensors", written}});
  EXPECT_TRUE(HasResult(paths, damage)) << damage;
  std::string bytes = ReadFile(weights);
  bytes.back() = static_cast<char>(bytes.back() ^ 1);
  std::ofstream(weights, std::ios::binary) << bytes;
  EXPECT_FALSE(HasResult(paths, damage));
  EXPECT_NE(damage.find("weights.json"), std::string::npos) << damage;
  damage.clear();
  fs::remove(weights);
  EXPECT_FALSE(HasResult(paths, damage));
  EXPECT_NE(damage, "");
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
