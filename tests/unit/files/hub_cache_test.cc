#include "trainer/files/hub_cache.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <map>

#include "trainer/base/error.h"
#include "trainer/files/weight_files.h"

namespace plural::trainer {
namespace {
namespace fs = std::filesystem;

constexpr const char* kCommit = "0123456789abcdef0123456789abcdef01234567";
constexpr const char* kOther = "89abcdef0123456789abcdef0123456789abcdef";

class HubCacheTest : public ::testing::Test {
 protected:
  HubCacheTest() {
    std::string pattern = (fs::temp_directory_path() / "plural-hub-XXXXXX").string();
    root_ = mkdtemp(pattern.data());
    for (const char* name : {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "HOME"}) {
      if (const char* text = std::getenv(name)) before_[name] = text;
      unsetenv(name);
    }
    Set("HF_HUB_CACHE", root_.string());
  }
  ~HubCacheTest() override {
    for (const char* name : {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "HOME"}) {
      unsetenv(name);
    }
    for (const auto& [name, text] : before_) Set(name, text);
    fs::remove_all(root_);
  }

  static void Set(const std::string& name, const std::string& text) { setenv(name.c_str(), text.c_str(), 1); }
  static void Write(const fs::path& path, const std::string& text) {
    fs::create_directories(path.parent_path());
    std::ofstream(path) << text;
  }
  // As huggingface_hub lays it out: a snapshot's files are links into blobs/.
  fs::path AddSnapshot(const std::string& folder, const std::string& commit, const std::string& file) {
    const fs::path snapshot = root_ / folder / "snapshots" / commit;
    Write(root_ / folder / "blobs" / (commit + file), "{}");
    fs::create_directories(snapshot);
    fs::create_symlink("../../blobs/" + commit + file, snapshot / file);
    return snapshot;
  }
  static std::string ErrorOf(const std::string& given) {
    try {
      HubFolder(given, "--model");
    } catch (const ExitError& error) {
      EXPECT_EQ(error.Code(), ExitCode::kMissingInput);
      return error.what();
    }
    return "";
  }

  fs::path root_;
  std::map<std::string, std::string> before_;
};

TEST_F(HubCacheTest, TheCacheIsWhereTheHubsVariablesPutIt) {
  EXPECT_EQ(HubCache(), root_);
  Set("HUGGINGFACE_HUB_CACHE", "/old");
  EXPECT_EQ(HubCache(), root_);
  unsetenv("HF_HUB_CACHE");
  EXPECT_EQ(HubCache(), "/old");
  Set("HUGGINGFACE_HUB_CACHE", "");
  Set("HOME", "/home/me");
  EXPECT_EQ(HubCache(), "/home/me/.cache/huggingface/hub");
  Set("XDG_CACHE_HOME", "/scratch");
  EXPECT_EQ(HubCache(), "/scratch/huggingface/hub");
  Set("HF_HOME", "~/hf");
  EXPECT_EQ(HubCache(), "/home/me/hf/hub");
}

TEST_F(HubCacheTest, ANameIsTheSnapshotOfItsRevision) {
  const fs::path first = AddSnapshot("models--org--name", kCommit, "config.json");
  const fs::path second = AddSnapshot("models--org--name", kOther, "config.json");
  Write(root_ / "models--org--name/refs/main", kCommit);
  Write(root_ / "models--org--name/refs/pr/1", std::string(kOther) + "\n");
  EXPECT_EQ(HubFolder("org/name", "--model"), first);
  EXPECT_EQ(HubFolder("org/name@main", "--model"), first);
  EXPECT_EQ(HubFolder("org/name@pr/1", "--model"), second);
  EXPECT_EQ(HubFolder(std::string("org/name@") + kOther, "--model"), second);
  EXPECT_EQ(HubFolder(first.string(), "--model"), first);
  EXPECT_EQ(HubFolder((root_ / "models--org--name").string(), "--model"), first);
  const fs::path alone = AddSnapshot("models--gpt2", kCommit, "config.json");
  Write(root_ / "models--gpt2/refs/main", kCommit);
  EXPECT_EQ(HubFolder("gpt2", "--model"), alone);
}

TEST_F(HubCacheTest, AFolderComesBeforeAName) {
  AddSnapshot("models--org--name", kCommit, "config.json");
  Write(root_ / "models--org--name/refs/main", kCommit);
  const fs::path here = fs::current_path();
  fs::create_directories(root_ / "org/name");
  fs::current_path(root_);
  EXPECT_EQ(HubFolder("org/name", "--model"), "org/name");
  fs::current_path(here);
}

TEST_F(HubCacheTest, WhatIsNotThereIsToldWithTheCommandThatDownloadsIt) {
  EXPECT_EQ(ErrorOf("org/name"),
            "--model 'org/name': no such folder, and no model of that name in the Hub "
            "cache '" +
                root_.string() + "'; download it once, before the run: hf download org/name");
  EXPECT_TRUE(ErrorOf("org/name@v1").ends_with(": hf download org/name --revision v1"));
  AddSnapshot("models--org--name", kCommit, "config.json");
  const std::string error = ErrorOf("org/name@v1");
  EXPECT_NE(error.find("no revision 'v1'"), std::string::npos) << error;
  EXPECT_NE(error.find(kCommit), std::string::npos) << error;
  for (const char* bad : {"/no/such/folder", "a/b/c", "../x", "org/", "org/.hidden", "org/na--me", "",
                          "org/name@", "org/name@../../x", "org/na me"}) {
    EXPECT_TRUE(
        ErrorOf(bad).ends_with("is not a folder, nor a name of the Hugging Face Hub such as ORG/NAME"))
        << bad;
  }
}

TEST_F(HubCacheTest, ADamagedReferenceLeadsNowhere) {
  AddSnapshot("models--org--name", kCommit, "config.json");
  Write(root_ / "models--org--name/refs/main", std::string("../snapshots/") + kCommit);
  EXPECT_NE(ErrorOf("org/name").find("no revision 'main'"), std::string::npos);
}

TEST_F(HubCacheTest, ADownloadThatWasStoppedIsToldAsOne) {
  const fs::path snapshot = AddSnapshot("models--org--name", kCommit, "config.json");
  Write(root_ / "models--org--name/refs/main", kCommit);
  EXPECT_EQ(DownloadHint(snapshot), "; this copy in the Hub cache is not whole: hf download org/name");
  EXPECT_EQ(DownloadHint(snapshot / ""), DownloadHint(snapshot));
  EXPECT_EQ(DownloadHint(root_), "");
  // A link whose blob has not come.
  fs::create_symlink("../../blobs/none", snapshot / "model.safetensors");
  try {
    WeightFiles(HubFolder("org/name", "--model"), "model");
    ADD_FAILURE();
  } catch (const ExitError& error) {
    EXPECT_EQ(error.Code(), ExitCode::kMissingInput);
    EXPECT_TRUE(std::string(error.what()).ends_with("is not whole: hf download org/name")) << error.what();
  }
  fs::remove(snapshot / "model.safetensors");
  Write(snapshot / "model.safetensors.index.json", R"({"weight_map": {"a": "model-1.safetensors"}})");
  try {
    WeightFiles(snapshot, "model");
    ADD_FAILURE();
  } catch (const ExitError& error) {
    EXPECT_EQ(error.Code(), ExitCode::kMissingInput);
    EXPECT_NE(std::string(error.what()).find("lacks model-1.safetensors"), std::string::npos) << error.what();
  }
  fs::remove(snapshot / "config.json");
  EXPECT_TRUE(ErrorOf("org/name").ends_with("is not whole: hf download org/name"));
  const fs::path other = AddSnapshot("models--org--name", kOther, "tokenizer.json");
  EXPECT_TRUE(DownloadHint(other).ends_with(std::string("hf download org/name --revision ") + kOther));
}

}  // namespace
}  // namespace plural::trainer
