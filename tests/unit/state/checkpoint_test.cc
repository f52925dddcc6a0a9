#include "trainer/state/checkpoint.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <ctime>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "data/sha256.h"
#include "trainer/base/error.h"
#include "trainer/base/file_io.h"
#include "trainer/files/safetensors.h"
#include "trainer/state/checkpoint_writer.h"

namespace plural::trainer {
namespace {
namespace fs = std::filesystem;

TrainState MakeState(std::int64_t columns = 5) {
  std::vector<dist::NamedTensor> tensors = {{"a.lora_A.weight", at::zeros({3, columns})},
                                            {"a.lora_B.weight", at::zeros({4, 3})}};
  for (auto& named : tensors) named.tensor.set_requires_grad(true);
  TrainState state(std::move(tensors), {});
  state.position.epoch_sums = Sums({"groups", "unpenalised_groups", "loss", "kl_nats", "some_later_sum"});
  return state;
}

// A state after `step` steps, with numbers that have no short decimal form.
void Train(TrainState& state, std::int64_t step) {
  for (; state.position.step < step; ++state.position.step) {
    for (const auto& span : state.parameters.Spans()) {
      for (std::int64_t e = 0; e < span.size; ++e) {
        state.parameters.Gradients()[span.offset + e].fill_(1.0 /
                                                            static_cast<double>(3 + e + state.position.step));
      }
    }
    state.optimizer.Step(state.parameters, 0.1);
  }
  state.position.epoch = 2;
  state.position.consumed_groups = 3 * step;
  state.position.epoch_sums["groups"] = 7;
  state.position.epoch_sums["loss"] = 1.0 / 3.0;
  state.position.epoch_sums["kl_nats"] = 0x1.fffffffffffffp-1;
  state.position.epoch_sums["some_later_sum"] = 0.1;
  state.position.metrics_bytes = 1234;
  state.position.validation_owed = true;
  state.validation.best["loss"] = {.value = 0.1, .step = 3};
  state.validation.unlikelihood_scale = 0.25;
  state.validation.lowered_in_row = 2;
  state.identity = {.seed = 0xFFFFFFFFFFFFFFFFULL,
                    .recipe_sha256 = "r",
                    .corpus = "c",
                    .validation = "v",
                    .weights_sha256 = "w",
                    .config_sha256 = "j",
                    .adapter_sha256 = "a"};
  state.provenance.ranks = 4;
}

class CheckpointTest : public ::testing::Test {
 protected:
  CheckpointTest() {
    std::string pattern = (fs::temp_directory_path() / "plural-checkpoint-XXXXXX").string();
    folder_ = fs::path(mkdtemp(pattern.data())) / "checkpoints";
  }
  ~CheckpointTest() override { fs::remove_all(folder_.parent_path()); }

  void SaveSteps(const Checkpoints& checkpoints, std::initializer_list<std::int64_t> steps) {
    TrainState state = MakeState();
    for (const std::int64_t step : steps) {
      Train(state, step);
      checkpoints.Save(SnapshotOf(state, ReplicaHash(state), false));
    }
  }
  static void Flip(const fs::path& file, std::int64_t offset) {
    std::string bytes = ReadFile(file);
    bytes[static_cast<std::size_t>(offset)] = static_cast<char>(bytes[static_cast<std::size_t>(offset)] ^ 4);
    std::ofstream(file, std::ios::binary) << bytes;
  }
  // Writes `json` as state.json of step 1 and gives the manifest its size and hash.
  void RewriteState(const nlohmann::json& json) const {
    const fs::path folder = folder_ / "step-00000001";
    const std::string text = json.dump();
    WriteFileDurably(folder / "state.json", text);
    nlohmann::json manifest = nlohmann::json::parse(ReadFile(folder / "manifest.json"));
    manifest["files"]["state.json"] = {{"size_bytes", text.size()}, {"sha256", data::Sha256OfBytes(text)}};
    WriteFileDurably(folder / "manifest.json", manifest.dump());
  }
  nlohmann::json SavedState() const {
    return nlohmann::json::parse(ReadFile(folder_ / "step-00000001/state.json"));
  }
  void ExpectRefused(ExitCode code, const std::string& word) const {
    TrainState state = MakeState();
    try {
      Checkpoints(folder_, 3).LoadNewest(state);
      ADD_FAILURE() << "accepted; should say " << word;
    } catch (const ExitError& error) {
      EXPECT_EQ(error.Code(), code) << error.what();
      EXPECT_NE(std::string(error.what()).find(word), std::string::npos) << error.what();
    }
  }
  void ExpectRefusedStep(const std::string& what) const {
    TrainState state = MakeState();
    EXPECT_THROW(LoadCheckpoint(folder_ / "step-00000001", state), ExitError) << what;
  }
  std::vector<std::string> Names() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder_)) names.push_back(entry.path().filename());
    std::sort(names.begin(), names.end());
    return names;
  }

  fs::path folder_;
};

TEST_F(CheckpointTest, GivesBackEveryBit) {
  const Checkpoints checkpoints(folder_, 3);
  TrainState saved = MakeState();
  Train(saved, 4);
  checkpoints.Save(SnapshotOf(saved, ReplicaHash(saved), false));
  TrainState loaded = MakeState();
  const auto result = checkpoints.LoadNewest(loaded);
  EXPECT_EQ(result.step, 4);
  EXPECT_TRUE(result.warnings.empty());
  EXPECT_EQ(ReplicaHash(loaded), ReplicaHash(saved));
  EXPECT_EQ(loaded.optimizer.Updates(), 4);
  EXPECT_EQ(StateToJson(loaded), StateToJson(saved));
  EXPECT_EQ(ReplicaHash(loaded), ReplicaHash(saved));
  EXPECT_EQ(loaded.position.epoch_sums["kl_nats"], 0x1.fffffffffffffp-1);
  EXPECT_EQ(loaded.position.epoch_sums["some_later_sum"], 0.1);
  EXPECT_EQ(loaded.identity.seed, 0xFFFFFFFFFFFFFFFFULL);
  EXPECT_EQ(loaded.identity.adapter_sha256, "a");
  // And goes on alike.
  Train(saved, 6);
  Train(loaded, 6);
  EXPECT_EQ(ReplicaHash(loaded), ReplicaHash(saved));
}

TEST_F(CheckpointTest, NoneThereIsNotAnError) {
  TrainState state = MakeState();
  EXPECT_TRUE(Checkpoints(folder_, 3).LoadNewest(state).folder.empty());
}

TEST_F(CheckpointTest, KeepsTheNewest) {
  SaveSteps(Checkpoints(folder_, 2), {1, 2, 3, 10});
  EXPECT_EQ(Names(), (std::vector<std::string>{"step-00000003", "step-00000010"}));
}

TEST_F(CheckpointTest, TheBestStaysBesideTheNewest) {
  const Checkpoints checkpoints(folder_, 2);
  TrainState state = MakeState();
  for (const auto& [step, best] : {std::pair{1, 1}, {2, 1}, {3, 1}, {4, 4}, {5, 4}, {6, 4}, {7, 4}}) {
    Train(state, step);
    Snapshot snapshot = SnapshotOf(state, ReplicaHash(state), false);
    snapshot.best_step = best;
    checkpoints.Save(snapshot);
    if (step == 3) {
      EXPECT_EQ(Names().front(), "step-00000001");
    }
  }
  EXPECT_EQ(Names(), (std::vector<std::string>{"step-00000004", "step-00000006", "step-00000007"}));
}

TEST_F(CheckpointTest, OfTwoFoldersTheNewestThatIsWholeIsTaken) {
  const Checkpoints own(folder_ / "own", 3), mirror(folder_ / "mirror", 3);
  SaveSteps(own, {1, 2, 3});
  SaveSteps(mirror, {1, 2, 3});
  TrainState state = MakeState();
  EXPECT_EQ(own.LoadNewest(state, &mirror).folder, own.StepFolder(3));
  Flip(own.StepFolder(3) / "trainable.safetensors", 200);
  const auto copy = own.LoadNewest(state, &mirror);
  EXPECT_EQ(copy.folder, mirror.StepFolder(3));
  EXPECT_EQ(copy.warnings.size(), 1U);
  fs::remove_all(mirror.StepFolder(3));
  EXPECT_EQ(own.LoadNewest(state, &mirror).folder, own.StepFolder(2));
  fs::remove_all(own.Folder());
  EXPECT_EQ(own.LoadNewest(state, &mirror).folder, mirror.StepFolder(2));
  // One that cannot be listed is told where there is another, and else an error.
  const Checkpoints broken("/dev/null/x", 3);
  EXPECT_EQ(mirror.LoadNewest(state, &broken).warnings.size(), 1U);
  EXPECT_THROW(own.LoadNewest(state, &broken), ExitError);
}

TEST_F(CheckpointTest, AValidationRecordThatCannotBeIsBadData) {
  SaveSteps(Checkpoints(folder_, 3), {1});
  const nlohmann::json saved = SavedState();
  ASSERT_TRUE(saved.contains("validation"));
  for (const char* change : {R"({"unlikelihood_scale": "nan"})", R"({"unlikelihood_scale": "0x1p+1"})",
                             R"({"best": {"loss": {"value": "inf", "step": 1}}})", R"({"best": [1]})",
                             R"({"best": {"loss": 1}})", R"({"lowered_in_row": -1})"}) {
    nlohmann::json json = saved;
    json["validation"].update(nlohmann::json::parse(change));
    RewriteState(json);
    ExpectRefusedStep(change);
  }
}

TEST_F(CheckpointTest, EqualStatesGiveEqualFiles) {
  SaveSteps(Checkpoints(folder_ / "x", 2), {3});
  SaveSteps(Checkpoints(folder_ / "y", 2), {3});
  for (const char* name : {"trainable.safetensors", "optimizer.safetensors", "state.json", "manifest.json"}) {
    EXPECT_EQ(ReadFile(folder_ / "x/step-00000003" / name), ReadFile(folder_ / "y/step-00000003" / name));
  }
}

// A flipped bit anywhere, a file cut short by one byte, a missing file: the older one is taken, once told.
TEST_F(CheckpointTest, FallsBackFromEveryDamage) {
  const Checkpoints checkpoints(folder_, 3);
  for (const char* name : {"trainable.safetensors", "optimizer.safetensors", "state.json", "manifest.json"}) {
    for (const char* damage : {"flip first", "flip middle", "flip last", "truncate", "remove"}) {
      fs::remove_all(folder_);
      SaveSteps(checkpoints, {1, 2});
      const fs::path file = folder_ / "step-00000002" / name;
      const auto size = static_cast<std::int64_t>(fs::file_size(file));
      const std::string kind = damage;
      if (kind == "flip first") Flip(file, 0);
      if (kind == "flip middle") Flip(file, size / 2);
      if (kind == "flip last") Flip(file, size - 2);
      if (kind == "truncate") fs::resize_file(file, static_cast<std::uintmax_t>(size - 2));
      if (kind == "remove") fs::remove(file);
      TrainState state = MakeState();
      const auto loaded = checkpoints.LoadNewest(state);
      EXPECT_EQ(loaded.step, 1) << name << ", " << damage;
      EXPECT_EQ(loaded.warnings.size(), 1U);
      EXPECT_EQ(state.optimizer.Updates(), 1);
      const auto names = Names();
      ASSERT_EQ(names.size(), 2U);
      EXPECT_EQ(names[1].rfind("step-00000002.bad-", 0), 0U) << names[1];
    }
  }
}

TEST_F(CheckpointTest, NoneWholeIsBadDataNowAndLater) {
  const Checkpoints checkpoints(folder_, 3);
  SaveSteps(checkpoints, {1, 2});
  Flip(folder_ / "step-00000001/trainable.safetensors", 200);
  Flip(folder_ / "step-00000002/trainable.safetensors", 200);
  for (int attempt = 0; attempt < 2; ++attempt) {
    TrainState state = MakeState();
    try {
      checkpoints.LoadNewest(state);
      FAIL() << "accepted";
    } catch (const ExitError& error) {
      EXPECT_EQ(error.Code(), ExitCode::kBadData);
    }
  }
}

TEST_F(CheckpointTest, NumbersThatAreNotFiniteAreFoundInEveryPart) {
  TrainState state = MakeState();
  Train(state, 1);
  EXPECT_EQ(NotFinite(state), "");
  for (at::Tensor part :
       {state.parameters.Values(), state.optimizer.FirstMoment(), state.optimizer.SecondMoment()}) {
    for (const double bad : {std::numeric_limits<double>::infinity(), std::nan("")}) {
      const auto& span = state.parameters.Spans()[1];
      at::Tensor value = part.detach()[span.offset + span.size - 1];
      const at::Tensor before = value.clone();
      value.fill_(bad);
      EXPECT_EQ(NotFinite(state), "a.lora_B.weight");
      value.copy_(before);
    }
  }
  EXPECT_EQ(NotFinite(state), "");
}

TEST_F(CheckpointTest, ALaterFormatIsRefusedAndStaysAsItIs) {
  SaveSteps(Checkpoints(folder_, 3), {1});
  nlohmann::json json = SavedState();
  json["format_version"] = 2;
  RewriteState(json);
  ExpectRefused(ExitCode::kBadData, "format version 2");
  json["format_version"] = 1;
  RewriteState(json);
  const fs::path path = folder_ / "step-00000001/manifest.json";
  nlohmann::json manifest = nlohmann::json::parse(ReadFile(path));
  manifest["format_version"] = 3;
  WriteFileDurably(path, manifest.dump());
  ExpectRefused(ExitCode::kBadData, "format version 3");
  EXPECT_EQ(Names(), std::vector<std::string>{"step-00000001"});
}

TEST_F(CheckpointTest, AFolderThatCannotBeListedIsNoNewRun) {
  std::ofstream(folder_) << "a file";
  ExpectRefused(ExitCode::kMissingInput, "cannot be listed");
  EXPECT_THROW(Checkpoints(folder_, 3).Steps(), ExitError);
  EXPECT_THROW(Checkpoints(folder_, 3).RemoveLeftovers(), ExitError);
}

TEST_F(CheckpointTest, AStateWithoutItsOptimizerIsBadData) {
  SaveSteps(Checkpoints(folder_, 3), {1});
  const nlohmann::json saved = SavedState();
  for (const nlohmann::json& optimizer : {nlohmann::json(), nlohmann::json::object(), nlohmann::json("x")}) {
    nlohmann::json json = saved;
    json["optimizer"] = optimizer;
    if (optimizer.is_null()) json.erase("optimizer");
    RewriteState(json);
    TrainState state = MakeState();
    EXPECT_THROW(LoadCheckpoint(folder_ / "step-00000001", state), ExitError) << optimizer;
  }
}

TEST_F(CheckpointTest, WhatCannotBeSetAsideIsNotSaidToBe) {
  SaveSteps(Checkpoints(folder_, 3), {1, 2});
  Flip(folder_ / "step-00000002/trainable.safetensors", 200);
  for (std::time_t now = std::time(nullptr), later = 0; later < 60; ++later) {
    fs::create_directories(folder_ / ("step-00000002.bad-" + std::to_string(now + later)) / "taken");
  }
  TrainState state = MakeState();
  const auto loaded = Checkpoints(folder_, 3).LoadNewest(state);
  EXPECT_EQ(loaded.step, 1);
  ASSERT_EQ(loaded.warnings.size(), 1U);
  EXPECT_NE(loaded.warnings[0].find("could not be set aside"), std::string::npos) << loaded.warnings[0];
}

TEST_F(CheckpointTest, AnEarlierVersionsStateIsRead) {
  SaveSteps(Checkpoints(folder_, 3), {1});
  nlohmann::json json = SavedState();
  json["position"].erase("validation_owed");
  for (const char* key : {"validation", "config_sha256"}) json["identity"].erase(key);
  RewriteState(json);
  TrainState state = MakeState();
  EXPECT_EQ(Checkpoints(folder_, 3).LoadNewest(state).step, 1);
  EXPECT_FALSE(state.position.validation_owed);
}

TEST_F(CheckpointTest, ASkippedStepIsNoUpdate) {
  TrainState state = MakeState();
  Train(state, 3);
  SkipStep(state.spikes);
  ++state.position.step;
  Checkpoints(folder_, 3).Save(SnapshotOf(state, ReplicaHash(state), false));
  TrainState loaded = MakeState();
  EXPECT_EQ(Checkpoints(folder_, 3).LoadNewest(loaded).step, 4);
  EXPECT_EQ(loaded.optimizer.Updates(), 3);
  ++state.position.step;
  Checkpoints(folder_, 3).Save(SnapshotOf(state, ReplicaHash(state), false));
  EXPECT_EQ(Checkpoints(folder_, 3).LoadNewest(loaded).step, 4) << "a step that is neither is damage";
}

TEST_F(CheckpointTest, IsCheckedWithoutAModel) {
  SaveSteps(Checkpoints(folder_, 3), {1});
  const fs::path folder = folder_ / "step-00000001";
  const auto saved = CheckCheckpoint(folder, Sums({"groups", "loss"}));
  EXPECT_EQ(saved.position.step, 1);
  EXPECT_EQ(saved.position.epoch_sums["groups"], 7);
  EXPECT_EQ(saved.identity.corpus, "c");
  EXPECT_EQ(Names(), std::vector<std::string>{"step-00000001"});
  // Moments of other parameters, with hashes that fit.
  const fs::path other = folder_ / "other";
  fs::create_directories(other);
  const WrittenFile written = WriteSafetensors(other / "o", {{"a.exp_avg", at::zeros({3})}});
  fs::copy_file(other / "o", folder / "optimizer.safetensors", fs::copy_options::overwrite_existing);
  nlohmann::json manifest = nlohmann::json::parse(ReadFile(folder / "manifest.json"));
  manifest["files"]["optimizer.safetensors"] = {{"size_bytes", written.size_bytes},
                                                {"sha256", written.sha256}};
  WriteFileDurably(folder / "manifest.json", manifest.dump());
  EXPECT_THROW(CheckCheckpoint(folder, {}), ExitError);
  Flip(folder / "state.json", 9);
  EXPECT_THROW(CheckCheckpoint(folder, {}), ExitError);
}

TEST_F(CheckpointTest, HalfWrittenFoldersAreRemovedAndNeverRead) {
  const Checkpoints checkpoints(folder_, 3);
  SaveSteps(checkpoints, {1});
  fs::copy(folder_ / "step-00000001", folder_ / ".tmp-step-00000009-x");
  fs::create_directories(folder_ / ".trash-step-00000000");
  TrainState state = MakeState();
  EXPECT_EQ(checkpoints.LoadNewest(state).step, 1);
  checkpoints.RemoveLeftovers();
  EXPECT_EQ(Names(), std::vector<std::string>{"step-00000001"});
}

TEST_F(CheckpointTest, AFolderUnderAnotherStepsNameIsRefused) {
  SaveSteps(Checkpoints(folder_, 3), {1});
  fs::rename(folder_ / "step-00000001", folder_ / "step-00000005");
  TrainState state = MakeState();
  EXPECT_THROW(LoadCheckpoint(folder_ / "step-00000005", state), ExitError);
}

TEST_F(CheckpointTest, AnotherLayoutIsRefused) {
  SaveSteps(Checkpoints(folder_, 3), {1});
  TrainState state = MakeState(/*columns=*/6);
  try {
    LoadCheckpoint(folder_ / "step-00000001", state);
    FAIL() << "accepted";
  } catch (const ExitError& error) {
    EXPECT_NE(std::string(error.what()).find("a.lora_A.weight"), std::string::npos) << error.what();
  }
}

// The model is wrong, not the checkpoint: with the right one the run goes on.
TEST_F(CheckpointTest, OfAnotherModelStaysAsItIs) {
  SaveSteps(Checkpoints(folder_, 3), {1, 2});
  TrainState other = MakeState(/*columns=*/6);
  try {
    Checkpoints(folder_, 3).LoadNewest(other);
    FAIL() << "accepted";
  } catch (const ExitError& error) {
    EXPECT_EQ(error.Code(), ExitCode::kBadData);
    EXPECT_NE(std::string(error.what()).find("another base model"), std::string::npos) << error.what();
  }
  EXPECT_EQ(Names(), (std::vector<std::string>{"step-00000001", "step-00000002"}));
  TrainState state = MakeState();
  EXPECT_EQ(Checkpoints(folder_, 3).LoadNewest(state).step, 2);
}

TEST_F(CheckpointTest, WhatTheDiskCannotReadIsPassedOverAndStays) {
  SaveSteps(Checkpoints(folder_, 3), {1, 2});
  const fs::path manifest = folder_ / "step-00000002/manifest.json";
  fs::remove(manifest);
  fs::create_symlink("/proc/self/mem", manifest);  // a regular file whose first byte is an EIO
  TrainState state = MakeState();
  const auto loaded = Checkpoints(folder_, 3).LoadNewest(state);
  EXPECT_EQ(loaded.step, 1);
  ASSERT_EQ(loaded.warnings.size(), 1U);
  EXPECT_NE(loaded.warnings[0].find("left as it is"), std::string::npos) << loaded.warnings[0];
  EXPECT_EQ(Names(), (std::vector<std::string>{"step-00000001", "step-00000002"}));
  fs::remove_all(folder_ / "step-00000001");
  ExpectRefused(ExitCode::kMissingInput, "manifest.json");
}

TEST_F(CheckpointTest, AFailedSaveLeavesTheLastOne) {
  const Checkpoints checkpoints(folder_, 1);
  SaveSteps(checkpoints, {1});
  // A file where the next one's folder must go cannot be replaced by a folder.
  std::ofstream(folder_.string() + "-blocked") << "x";
  TrainState state = MakeState();
  Train(state, 2);
  try {
    Checkpoints(folder_.string() + "-blocked", 1).Save(SnapshotOf(state, ReplicaHash(state), false));
    FAIL() << "saved";
  } catch (const ExitError& error) {
    EXPECT_EQ(error.Code(), ExitCode::kCheckpointWrite);
  }
  EXPECT_EQ(checkpoints.LoadNewest(state).step, 1);
}

TEST_F(CheckpointTest, WhatIsWrittenMeanwhileIsTheSnapshot) {
  TrainState state = MakeState();
  Train(state, 1);
  const std::string before = ReplicaHash(state);
  CheckpointWriter writer{Checkpoints(folder_, 3)};
  Snapshot snapshot = SnapshotOf(state, before, /*copies=*/true);
  Train(state, 2);  // the run goes on
  ASSERT_NE(ReplicaHash(state), before);
  writer.Start(std::move(snapshot));
  writer.Wait();
  EXPECT_EQ(writer.TakeCommitted()->step, 1);
  EXPECT_FALSE(writer.TakeCommitted()) << "each is told once";
  TrainState loaded = MakeState();
  EXPECT_EQ(Checkpoints(folder_, 3).LoadNewest(loaded).step, 1);
  EXPECT_EQ(ReplicaHash(loaded), before);
}

TEST_F(CheckpointTest, WhatCannotBeWrittenMeanwhileIsToldOnce) {
  std::ofstream(folder_.string() + "-blocked") << "a file";
  TrainState state = MakeState();
  CheckpointWriter writer{Checkpoints(folder_.string() + "-blocked", 3)};
  writer.Start(SnapshotOf(state, ReplicaHash(state), /*copies=*/true));
  try {
    writer.Wait();
    FAIL() << "written into a file";
  } catch (const ExitError& error) {
    EXPECT_EQ(error.Code(), ExitCode::kCheckpointWrite);
  }
  writer.Wait();
  EXPECT_FALSE(writer.TakeCommitted());
}

}  // namespace
}  // namespace plural::trainer
