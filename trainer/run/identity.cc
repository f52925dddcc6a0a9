#include "trainer/run/identity.h"

#include <sys/stat.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <system_error>

#include "data/error.h"
#include "data/sha256.h"
#include "trainer/base/error.h"
#include "trainer/base/json_io.h"
#include "trainer/files/hf_folder.h"
#include "trainer/run/run_folder.h"
#include "trainer/run/train_setup.h"

namespace plural::trainer {
namespace {

// The hash of what config.json says, whatever its spaces and the order of its keys.
std::string ConfigSha256(const Recipe& recipe) {
  if (recipe.model.path.empty()) return "";
  return data::Sha256OfBytes(ReadJsonFile(std::filesystem::path(ModelFolder(recipe)) / "config.json").dump());
}

}  // namespace

// Where there is no sidecar, nobody has read the whole file.
std::string IdentityOfCorpus(const data::Corpus& corpus) {
  return corpus.Info().sha256.empty() ? corpus.Fingerprint() : corpus.Info().sha256;
}

bool ReadsForOthers(const std::string& path, const dist::World& world, dist::Collectives& collectives) {
  struct stat status {};
  std::string file;  // one that is not there is reported by who opens it
  if (::stat(path.c_str(), &status) == 0) {
    file = world.Host() + " " + std::to_string(status.st_dev) + " " + std::to_string(status.st_ino);
  }
  const std::vector<std::string> files = collectives.AllGather(file);
  for (std::size_t rank = 0; rank < static_cast<std::size_t>(world.Rank()); ++rank) {
    if (files[rank] == file) return false;
  }
  return true;
}

std::string ContentSha256(const data::Corpus& corpus) {
  return corpus.Info().sha256.empty() ? data::Sha256OfFile(corpus.Path()) : corpus.Info().sha256;
}

Identity IdentityOf(const Recipe& recipe, const data::Corpus& corpus, const data::Corpus* validation,
                    const dist::World& world) {
  Identity identity;
  identity.seed = recipe.seed;
  identity.recipe_sha256 = RecipeSha256(recipe);
  identity.corpus = IdentityOfCorpus(corpus);
  if (validation != nullptr) identity.validation = IdentityOfCorpus(*validation);
  identity.config_sha256 = ConfigSha256(recipe);
  if (world.LocalRank() != 0) return identity;
  if (!recipe.model.path.empty()) identity.weights_sha256 = WeightsFingerprint(ModelFolder(recipe));
  if (!recipe.adapter.init_from.empty()) {
    identity.adapter_sha256 = WeightsFingerprint(AdapterFolder(recipe));
  }
  return identity;
}

Identity IdentityOfInputs(const Recipe& recipe, std::vector<std::string>& gone) {
  Identity identity;
  const auto corpus = [&](const char* key, const std::string& path) -> std::string {
    if (path.empty()) return "";
    if (std::error_code error; std::filesystem::exists(path, error)) {
      return IdentityOfCorpus(data::Corpus(path, {.verify_sidecar = true, .scan_tokens = false}));
    }
    gone.emplace_back(key);
    return "";
  };
  identity.corpus = corpus("data.train", recipe.data.train);
  identity.validation = corpus("data.validation", recipe.data.validation);
  const auto fingerprint = [&](const char* key, const std::string& given,
                               std::string (*folder)(const Recipe&)) {
    if (given.empty()) return std::string();
    try {
      return WeightsFingerprint(folder(recipe));
    } catch (const ExitError& error) {
      if (error.Code() != ExitCode::kMissingInput) throw;
    } catch (const data::MissingInput&) {
    }
    gone.emplace_back(key);
    return std::string();
  };
  identity.weights_sha256 = fingerprint("model.path", recipe.model.path, ModelFolder);
  if (!identity.weights_sha256.empty()) identity.config_sha256 = ConfigSha256(recipe);
  identity.adapter_sha256 = fingerprint("adapter.init_from", recipe.adapter.init_from, AdapterFolder);
  return identity;
}

void RequireUnchangedInputs(const Recipe& recipe, const Identity& now, const Identity& saved) {
  const auto require = [&](const std::string& what, const std::string& path, const std::string& is,
                           const std::string& was) {
    if (is.empty() || was.empty() || is == was) return;
    throw ExitError(ExitCode::kBadRecipe,
                    recipe.RunFolder().string() + ": this run is finished, and " + what + " (" + path +
                        ") has changed since: it was " + was + ", now it is " + is +
                        ". Give the run another name (name=...) to train with what is there now, or put the "
                        "old one back");
  };
  require("its corpus, data.train", recipe.data.train, now.corpus, saved.corpus);
  require("its validation corpus, data.validation", recipe.data.validation, now.validation, saved.validation);
  require("its base model, model.path", recipe.model.path, now.weights_sha256, saved.weights_sha256);
  require("config.json of its base model, model.path", recipe.model.path, now.config_sha256,
          saved.config_sha256);
  require("the adapter it began with, adapter.init_from", recipe.adapter.init_from, now.adapter_sha256,
          saved.adapter_sha256);
}

void RequireSameIdentity(const Identity& now, const Identity& saved, const std::string& checkpoint) {
  const auto require = [&](const std::string& what, const std::string& is, const std::string& was) {
    if (is == was) return;
    throw ExitError(ExitCode::kBadData, checkpoint + ": made with another " + what + " (" + was +
                                            ", now it is " + is +
                                            "); restore it, or give the run another name");
  };
  require("corpus, data.train", now.corpus, saved.corpus);
  require("base model, model.path", now.weights_sha256, saved.weights_sha256);
  // What checkpoints of earlier versions do not say is not compared.
  if (!saved.validation.empty()) require("corpus, data.validation", now.validation, saved.validation);
  if (!saved.config_sha256.empty()) {
    require("config.json of the base model, model.path", now.config_sha256, saved.config_sha256);
  }
  if (!saved.adapter_sha256.empty()) {
    require("adapter, adapter.init_from", now.adapter_sha256, saved.adapter_sha256);
  }
  require("recipe", now.recipe_sha256, saved.recipe_sha256);
}

}  // namespace plural::trainer
