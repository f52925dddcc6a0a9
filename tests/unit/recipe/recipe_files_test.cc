// The recipes and the documentation that are shipped.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "trainer/recipe/recipe.h"
#include "trainer/recipe/schema.h"

namespace plural::trainer {
namespace {

namespace fs = std::filesystem;
const fs::path kRoot = PLURAL_SOURCE_DIR;

std::string ReadText(const fs::path& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

// All but the parts that recipes inherit from, and the tables of papers, which hold sweeps
// (tests/text/papers_test.py).
std::vector<fs::path> ShippedRecipes() {
  std::vector<fs::path> out;
  for (const auto& entry : fs::recursive_directory_iterator(kRoot / "recipes")) {
    if (entry.path().extension() != ".yaml") continue;
    const std::string folder = entry.path().parent_path().filename();
    if (folder != "base" && folder != "papers") out.push_back(entry.path());
  }
  return out;
}

TEST(RecipeFiles, EveryRecipeLoadsAndOpensWithItsCommand) {
  const auto files = ShippedRecipes();
  EXPECT_GE(files.size(), 8U);
  for (const fs::path& file : files) {
    SCOPED_TRACE(file.string());
    Recipe recipe;
    ASSERT_NO_THROW(recipe = LoadRecipe(file, {}));
    const std::string text = ReadText(file);
    EXPECT_TRUE(text.starts_with("# "));
    // Those of a reproduction are run by launch/reproduce, which names the runs.
    if (file.parent_path().filename() == "reproduction") continue;
    EXPECT_EQ(recipe.name, file.stem().string());
    const std::string command = "train " + fs::relative(file, kRoot).string();
    EXPECT_NE(text.substr(0, text.find("\nname:")).find(command), std::string::npos)
        << "no '" << command << "'";
  }
}

TEST(RecipeFiles, EveryMethodHasARecipe) {
  std::set<std::string> methods;
  for (const fs::path& file : ShippedRecipes()) methods.emplace(LoadRecipe(file, {}).method->name);
  for (const Method* method : Methods()) {
    EXPECT_TRUE(methods.contains(std::string(method->name))) << method->name;
  }
}

TEST(RecipeFiles, PublishedSettings) {
  const Recipe mistral = LoadRecipe(kRoot / "recipes/poexft-mistral-7b.yaml", {});
  EXPECT_EQ(mistral.adapter.settings.rank, 16);
  EXPECT_EQ(mistral.adapter.settings.alpha, 32);
  EXPECT_EQ(mistral.adapter.settings.dropout, 0.05);
  EXPECT_EQ(mistral.adapter.settings.targets,
            (std::vector<std::string>{"q_proj", "k_proj", "v_proj", "lm_head"}));
  EXPECT_EQ(mistral.optimizer.clip_norm, 0.0);
  const Recipe llama = LoadRecipe(kRoot / "recipes/poexft-llama2-7b.yaml", {});
  EXPECT_EQ(llama.model.path, "meta-llama/Llama-2-7b-chat-hf");
  EXPECT_EQ(llama.adapter.settings.rank, 64);
  EXPECT_EQ(llama.adapter.settings.alpha, 16);
  EXPECT_EQ(llama.adapter.settings.targets, (std::vector<std::string>{"q_proj", "v_proj"}));
  EXPECT_EQ(llama.group.possibilities, 9);
  const Recipe latents = LoadRecipe(kRoot / "recipes/cvf-llama2-7b.yaml", {});
  EXPECT_EQ(latents.cvf.latents, 20);
  EXPECT_EQ(latents.cvf.estimator, LatentEstimator::kGumbelSoft);
  EXPECT_EQ(latents.group.responses, 1);
  EXPECT_EQ(latents.train.groups_per_step, 8);
  EXPECT_EQ(latents.adapter.settings.rank, 64);
  const Recipe matching = LoadRecipe(kRoot / "recipes/distribution-matching-llama2-13b.yaml", {});
  EXPECT_EQ(matching.adapter.settings.rank, 4);
  EXPECT_EQ(matching.adapter.settings.alpha, 8);
  EXPECT_EQ(matching.adapter.settings.targets.size(), 7U);
  EXPECT_EQ(matching.train.epochs, 50);
  EXPECT_EQ(matching.optimizer.eps, 1e-5);
  EXPECT_EQ(matching.optimizer.weight_decay, 0.01);
  EXPECT_EQ(matching.optimizer.clip_norm, 1.0);
}

// After a change of the schema: build, then replace the table by the output of `plural validate --keys`.
TEST(RecipeFiles, DocumentationHasTheTableOfKeys) {
  const std::string text = ReadText(kRoot / "docs/recipes.md");
  EXPECT_NE(text.find(KeysMarkdown()), std::string::npos)
      << "docs/recipes.md is not up to date with the schema";
}

TEST(RecipeFiles, EveryKeyIsDocumentedAndDefaultsAreInRange) {
  const Recipe standard;
  for (const Key& key : Schema()) {
    SCOPED_TRACE(key.name);
    EXPECT_FALSE(key.meaning.empty());
    const auto value = key.read(standard);
    if (value.is_number()) {
      EXPECT_TRUE(key.range.Contains(value.get<double>()));
    }
    if (key.type == KeyType::kWord) {
      EXPECT_NE(std::find(key.words.begin(), key.words.end(), value), key.words.end());
    }
  }
  for (const Method* method : Methods()) {
    for (const KeyDefault& other : method->defaults) EXPECT_NE(FindKey(other.key), nullptr) << other.key;
    for (const OwnKey& own : method->keys) EXPECT_EQ(FindKey(own.name)->method, method) << own.name;
  }
}

}  // namespace
}  // namespace plural::trainer
