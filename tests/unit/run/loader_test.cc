#include "trainer/run/loader.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "data/error.h"
#include "tests/unit/support/corpus_file.h"
#include "trainer/plan/predict_cost.h"

namespace plural::trainer {
namespace {

using namespace data;  // NOLINT: the vocabulary of what is loaded

namespace fs = std::filesystem;

constexpr int kGroups = 7;
constexpr int kResponses = 3;
constexpr int kPossibilities = 4;

// Groups of different lengths in which sequences share their prompt and their tail, nothing else: the first
// token of every response is its own. All tails have two tokens.
CorpusFile SevenGroups() {
  CorpusFile file;
  file.attributes["vocab_size"] = std::int64_t{30};
  file.attributes["possibilities"] = std::int64_t{kPossibilities};
  for (const char* name : {"prompt_tokens", "tail_tokens", "response_tokens"}) {
    file.Ints<std::int32_t>(name).clear();
  }
  for (const char* name : {"prompt_offsets", "tail_offsets", "response_offsets", "group_responses",
                           "id_offsets", "vocab_offsets"}) {
    file.Ints<std::int64_t>(name) = {0};
  }
  file.Ints<double>("response_weights").clear();
  file.Ints<std::uint8_t>("response_masks").clear();
  file.Ints<std::uint8_t>("id_bytes").clear();
  file.Ints<std::uint8_t>("vocab_bytes").assign(30, 'x');
  for (int i = 1; i <= 30; ++i) file.Ints<std::int64_t>("vocab_offsets").push_back(i);

  const auto close = [&](const char* offsets, std::size_t size) {
    file.Ints<std::int64_t>(offsets).push_back(static_cast<std::int64_t>(size));
  };
  auto& prompts = file.Ints<std::int32_t>("prompt_tokens");
  auto& tails = file.Ints<std::int32_t>("tail_tokens");
  auto& responses = file.Ints<std::int32_t>("response_tokens");
  for (int g = 0; g < kGroups; ++g) {
    prompts.insert(prompts.end(), static_cast<std::size_t>(3 + 5 * g), 1);
    close("prompt_offsets", prompts.size());
    for (int k = 0; k <= kPossibilities; ++k) {
      tails.insert(tails.end(), {10 + k, 2});
      close("tail_offsets", tails.size());
    }
    for (int r = 0; r < kResponses; ++r) {
      responses.push_back(20 + r);
      responses.insert(responses.end(), static_cast<std::size_t>(2 + r + g), 3);
      close("response_offsets", responses.size());
      file.Ints<double>("response_weights").push_back(1.0);
    }
    close("group_responses", static_cast<std::size_t>(kResponses * (g + 1)));
    file.Ints<std::uint8_t>("id_bytes").push_back(static_cast<std::uint8_t>('a' + g));
    close("id_offsets", static_cast<std::size_t>(g + 1));
  }
  file.Ints<std::uint8_t>("response_masks").assign(responses.size(), 1);
  return file;
}

class LoaderTest : public ::testing::Test {
 protected:
  void SetUp() override {
    path_ = fs::path(::testing::TempDir()) / ("loader_test_" + std::to_string(getpid()) + ".h5");
    SevenGroups().Write(path_);
  }
  void TearDown() override {
    EXPECT_EQ(H5Fget_obj_count(static_cast<hid_t>(H5F_OBJ_ALL), H5F_OBJ_ALL), 0);
    fs::remove(path_);
  }

  // Two epochs of four steps of two groups (the last step has one), method peft.
  static Loader::Settings Settings() {
    Loader::Settings settings;
    settings.method = &MethodNamed("poexft");
    settings.label.responses = kResponses;
    settings.label.possibilities = kPossibilities;
    settings.plan = {.seed = 3, .shuffle = true, .groups_per_step = 2};
    settings.last_step = 8;
    return settings;
  }

  Loader Open(const Loader::Settings& settings) const { return Loader(Corpus(path_), settings); }

  // Makes the file look changed.
  void Touch() const { fs::last_write_time(path_, fs::last_write_time(path_) + std::chrono::seconds(1)); }

  fs::path path_;
};

std::vector<std::int64_t> GroupsOf(const StepBatch& batch) {
  std::vector<std::int64_t> groups;
  for (const LabelledGroup& group : batch.groups) groups.push_back(group.group);
  return groups;
}

std::vector<int> PossibilitiesOf(const StepBatch& batch) {
  std::vector<int> numbers;
  for (const LabelledGroup& group : batch.groups) {
    for (const LabelledSequence& sequence : group.sequences) numbers.push_back(sequence.possibility);
  }
  return numbers;
}

TEST_F(LoaderTest, DeliversThePlanInOrder) {
  const Loader::Settings settings = Settings();
  const BatchPlan plan(kGroups, settings.plan);
  Loader loader = Open(settings);
  for (std::int64_t step = 0; step < 8; ++step) {
    const StepBatch batch = loader.Next();
    EXPECT_EQ(batch.step, step);
    EXPECT_EQ(batch.epoch, step / 4);
    EXPECT_EQ(batch.groups_in_step, step % 4 == 3 ? 1 : 2);
    EXPECT_EQ(GroupsOf(batch), plan.StepGroups(step));
    EXPECT_EQ(batch.predicted_balance, 1.0);
    ASSERT_FALSE(batch.passes.empty());
    // The weights are scaled for the whole step: likelihoods of a group sum to 1 / groups.
    double likelihood = 0.0;
    for (const RowPass& pass : batch.passes) {
      for (const Edge& edge : pass.edges) likelihood += edge.likelihood;
    }
    EXPECT_NEAR(likelihood, 1.0, 1e-12);  // a sum of some 50 weights, each rounded to 2^-53
  }
  EXPECT_THROW(loader.Next(), std::logic_error);
}

// Ranks together take the groups of the plan, each once, whatever their number; what a group becomes does
// not depend on it.
TEST_F(LoaderTest, RanksShareTheStep) {
  Loader::Settings settings = Settings();
  settings.plan.groups_per_step = 5;
  settings.last_step = 4;
  Loader alone = Open(settings);
  std::vector<StepBatch> whole;
  for (int step = 0; step < 4; ++step) whole.push_back(alone.Next());
  for (const int ranks : {2, 3, 8}) {
    std::vector<std::vector<std::int64_t>> groups(4);
    std::vector<std::size_t> sequences(4, 0);
    std::vector<double> balance(4, -1.0);
    for (int rank = 0; rank < ranks; ++rank) {
      settings.rank = rank;
      settings.ranks = ranks;
      Loader loader = Open(settings);
      for (std::size_t step = 0; step < 4; ++step) {
        const StepBatch batch = loader.Next();
        const auto mine = GroupsOf(batch);
        groups[step].insert(groups[step].end(), mine.begin(), mine.end());
        sequences[step] += PossibilitiesOf(batch).size();
        EXPECT_EQ(batch.groups_in_step, whole[step].groups_in_step);
        if (rank > 0) {
          EXPECT_EQ(batch.predicted_balance, balance[step]);
        }
        balance[step] = batch.predicted_balance;
        EXPECT_EQ(batch.passes.empty(), batch.groups.empty());
      }
    }
    for (std::size_t step = 0; step < 4; ++step) {
      auto expected = GroupsOf(whole[step]);
      std::sort(expected.begin(), expected.end());
      std::sort(groups[step].begin(), groups[step].end());
      EXPECT_EQ(groups[step], expected);
      EXPECT_EQ(sequences[step], PossibilitiesOf(whole[step]).size());
    }
  }
}

TEST_F(LoaderTest, StartingLateGivesTheSameSteps) {
  Loader whole = Open(Settings());
  std::vector<StepBatch> batches;
  for (int step = 0; step < 8; ++step) batches.push_back(whole.Next());
  EXPECT_NE(PossibilitiesOf(batches[0]), PossibilitiesOf(batches[4]));  // drawn anew each epoch
  for (std::int64_t first = 1; first < 8; ++first) {
    Loader::Settings settings = Settings();
    settings.first_step = first;
    Loader late = Open(settings);
    for (auto step = static_cast<std::size_t>(first); step < 8; ++step) {
      const StepBatch batch = late.Next();
      EXPECT_EQ(batch.step, batches[step].step);
      EXPECT_EQ(GroupsOf(batch), GroupsOf(batches[step]));
      EXPECT_EQ(PossibilitiesOf(batch), PossibilitiesOf(batches[step]));
    }
  }
}

// A group that cannot be used fails its own step, after the steps before it; and again when asked again.
TEST_F(LoaderTest, RethrowsAtTheStepThatFails) {
  CorpusFile file = SevenGroups();
  file.Ints<std::int32_t>("prompt_tokens").back() = 99;  // in group 6
  file.Write(path_);
  Loader::Settings settings = Settings();
  settings.plan.shuffle = false;
  Loader loader = Open(settings);
  for (int step = 0; step < 3; ++step) loader.Next();
  EXPECT_THROW(loader.Next(), DataError);
  EXPECT_THROW(loader.Next(), DataError);
}

// The file is checked when an epoch's first step is read, and that is one step ahead, no more: a change
// after step 2 was taken comes before the check, which waits until step 3 is taken.
TEST_F(LoaderTest, AFileThatChangesIsRefusedAtTheNextEpoch) {
  Loader loader = Open(Settings());
  for (int step = 0; step < 3; ++step) loader.Next();
  // Time for a reader that runs too far ahead to do so; a right one never fails here, however slow it is.
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  Touch();
  EXPECT_EQ(loader.Next().step, 3);
  try {
    loader.Next();
    FAIL() << "the change was not noticed";
  } catch (const DataError& error) {
    EXPECT_NE(std::string(error.what()).find("changed during the run"), std::string::npos);
  }
}

TEST_F(LoaderTest, EndsCleanlyInEveryState) {
  for (int taken = 0; taken <= 8; ++taken) {
    Loader loader = Open(Settings());
    for (int step = 0; step < taken; ++step) loader.Next();
  }
  Loader::Settings nothing = Settings();
  nothing.last_step = 0;
  Loader empty = Open(nothing);
  EXPECT_THROW(empty.Next(), std::logic_error);
}

TEST_F(LoaderTest, EndsCleanlyAfterAFailureNobodyAskedFor) {
  Loader::Settings settings = Settings();
  settings.label.responses = kResponses + 1;  // more than any group has
  { Loader loader = Open(settings); }
  Loader loader = Open(settings);
  EXPECT_THROW(loader.Next(), DataError);
}

TEST_F(LoaderTest, RefusesARankOutsideTheWorld) {
  Loader::Settings settings = Settings();
  settings.rank = 1;
  EXPECT_THROW(Open(settings), std::invalid_argument);
}

// Where responses share nothing the prediction is the size of the tree, to the row.
TEST_F(LoaderTest, PredictsTheRowsOfTheTree) {
  Corpus corpus(path_);
  for (const char* name : {"pretrain", "otoft", "otmft", "peft", "distribution_matching"}) {
    const Method& method = MethodNamed(name);
    for (const int max_negatives : {0, 3}) {
      LabelSettings label = Settings().label;
      label.max_negatives = max_negatives;
      for (std::int64_t g = 0; g < kGroups; ++g) {
        const double rows = PredictCost(corpus.Lengths(g), method, label, CostModel{});
        const TokenTree tree = BuildTree(Label(method, corpus.Read(g), label, 0).sequences);
        if (method.negatives && max_negatives > 0) {
          // Which negatives are drawn decides; their mean length is what is predicted.
          EXPECT_NEAR(rows, static_cast<double>(tree.Rows()), 3.0 + 1.0) << g;
        } else {
          EXPECT_EQ(rows, static_cast<double>(tree.Rows())) << name << " group " << g;
        }
      }
    }
  }
}

TEST_F(LoaderTest, PredictsBothPassesOfLatents) {
  Corpus corpus(path_);
  const Method& cvf = MethodNamed("cvf");
  LabelSettings label = Settings().label;
  for (const int branches : {0, 3}) {
    label.latent_branches = branches;
    for (std::int64_t g = 0; g < kGroups; ++g) {
      const LabelledGroup group = Label(cvf, corpus.Read(g), label, 0);
      const std::int64_t rows = BuildTree(group.recognition).Rows() + BuildTree(group.sequences).Rows();
      EXPECT_EQ(PredictCost(corpus.Lengths(g), cvf, label, CostModel{}), static_cast<double>(rows)) << g;
    }
  }
}

// Which of three responses are taken is not known from lengths: two thirds of all their tokens.
TEST_F(LoaderTest, PredictsAnAlignedSelectionFromAllCandidates) {
  const Corpus::GroupLengths lengths{.prompt = 10, .longest_tail = 2, .responses = {3, 6, 9}};
  const Method& peft = MethodNamed("poexft");
  LabelSettings label{.responses = 2, .selection = Selection::kAligned};
  // 10 + 2 * 2 and, under either number, 12 tokens of which the last of 2 responses is not fed.
  EXPECT_DOUBLE_EQ(PredictCost(lengths, peft, label, CostModel{}), 10 + 2 * 2 + 2 * (12 - 2));
  label.selection = Selection::kFirst;
  EXPECT_DOUBLE_EQ(PredictCost(lengths, peft, label, CostModel{}), 10 + 2 * 2 + 2 * (9 - 2));
}

// A cut group costs what its parts cost. The prediction leaves out that tails are repeated too and that a
// cut falls between whole responses: half as much again either way is what a balance can bear.
TEST_F(LoaderTest, PredictsTheCostOfACutGroup) {
  Corpus corpus(path_);
  const Method& peft = MethodNamed("poexft");
  const LabelSettings label = Settings().label;
  for (const CostModel& cost :
       {CostModel{.per_row_pair = 0.05}, CostModel{.per_row_pair = 0.001}, CostModel{.max_rows = 60},
        CostModel{.per_visible_pair = 0.05}, CostModel{.per_visible_pair = 0.05, .max_rows = 60}}) {
    for (std::int64_t g = 0; g < kGroups; ++g) {
      const std::vector<LabelledSequence> sequences = Label(peft, corpus.Read(g), label, 0).sequences;
      double exact = 0.0;
      for (const std::vector<int>& part : CutGroup(sequences, cost)) {
        const TokenTree tree = BuildTree(sequences, part);
        exact += cost.Cost(tree.Rows());
        for (const std::int32_t ancestors : tree.position) exact += cost.per_visible_pair * ancestors;
      }
      const double predicted = PredictCost(corpus.Lengths(g), peft, label, cost);
      EXPECT_GT(predicted, exact / 1.5) << "group " << g;
      EXPECT_LT(predicted, exact * 1.5) << "group " << g;
    }
  }
}

}  // namespace
}  // namespace plural::trainer
