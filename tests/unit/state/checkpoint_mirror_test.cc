#include "trainer/state/checkpoint_mirror.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/zeros.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>

#include "trainer/base/file_io.h"

namespace plural::trainer {
namespace {
namespace fs = std::filesystem;

class MirrorTest : public ::testing::Test {
 protected:
  MirrorTest() {
    std::string pattern = (fs::temp_directory_path() / "plural-mirror-XXXXXX").string();
    folder_ = mkdtemp(pattern.data());
    WriteFileDurably(folder_ / "metrics.jsonl", "one\ntwo\nthree\n");
  }
  ~MirrorTest() override { fs::remove_all(folder_); }

  Snapshot At(std::int64_t step) const {
    std::vector<dist::NamedTensor> tensors = {{"w", at::zeros({2})}};
    tensors[0].tensor.set_requires_grad(true);
    TrainState state(std::move(tensors), {});
    state.position.step = step;
    state.spikes.skipped_steps = step;  // no update was made
    state.position.metrics_bytes = 8;
    return SnapshotOf(state, ReplicaHash(state), true);
  }
  CheckpointMirror To(const fs::path& copies) const {
    return {Checkpoints(copies, 2), folder_ / "metrics.jsonl", copies / "metrics.jsonl"};
  }

  fs::path folder_;
};

TEST_F(MirrorTest, CopiesTheCheckpointAndTheLinesUpToIt) {
  const fs::path copies = folder_ / "disk/run";
  CheckpointMirror mirror = To(copies);
  for (const std::int64_t step : {1, 2, 3}) {
    EXPECT_FALSE(mirror.Start(At(step)));
    ASSERT_TRUE(mirror.WaitFor(60));
    const auto copied = mirror.TakeCopied();
    ASSERT_TRUE(copied);
    EXPECT_EQ(copied->step, step);
    EXPECT_EQ(copied->problem, "");
    EXPECT_FALSE(mirror.TakeCopied());
  }
  EXPECT_EQ(ReadFile(copies / "metrics.jsonl"), "one\ntwo\n");
  EXPECT_EQ(Checkpoints(copies, 2).Steps(), (std::vector<std::int64_t>{2, 3}));
  EXPECT_NO_THROW(CheckCheckpoint(copies / "step-00000003", {}));
}

TEST_F(MirrorTest, TheNewestIsCopiedHoweverFastTheyCome) {
  CheckpointMirror mirror = To(folder_ / "disk");
  for (std::int64_t step = 1; step <= 20; ++step) {
    mirror.Start(At(step));
    mirror.TakeCopied();
  }
  ASSERT_TRUE(mirror.WaitFor(60));
  EXPECT_EQ(Checkpoints(folder_ / "disk", 2).Steps().back(), 20);
}

TEST_F(MirrorTest, WhatGoesWrongIsOneLine) {
  CheckpointMirror mirror = To("/dev/null/run");
  EXPECT_FALSE(mirror.Start(At(1)));
  ASSERT_TRUE(mirror.WaitFor(60));
  EXPECT_NE(mirror.TakeCopied()->problem, "");
  // Lines that are not there are no copy, and then there is no checkpoint that would need them.
  fs::resize_file(folder_ / "metrics.jsonl", 3);
  CheckpointMirror other = To(folder_ / "disk");
  EXPECT_FALSE(other.Start(At(1)));
  ASSERT_TRUE(other.WaitFor(60));
  EXPECT_NE(other.TakeCopied()->problem, "");
  EXPECT_TRUE(Checkpoints(folder_ / "disk", 2).Steps().empty());
}

TEST_F(MirrorTest, ADiskThatHangsHoldsNothingUp) {
  fs::create_directories(folder_ / "disk");
  const fs::path pipe = folder_ / "pipe";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  // A pipe into which nobody writes, instead of the metrics.
  const int end = open(pipe.c_str(), O_RDWR | O_CLOEXEC);
  ASSERT_GE(end, 0);
  CheckpointMirror mirror(Checkpoints(folder_ / "disk", 2), pipe, folder_ / "disk/metrics.jsonl");
  EXPECT_FALSE(mirror.Start(At(1)));
  EXPECT_FALSE(mirror.WaitFor(0.05));
  EXPECT_FALSE(mirror.Start(At(2)));
  EXPECT_EQ(mirror.Start(At(3)), 2) << "the newest one waits";
  EXPECT_FALSE(mirror.TakeCopied());
  // It comes back, once for each copy.
  ASSERT_EQ(write(end, "one\ntwo\n", 8), 8);
  while (Checkpoints(folder_ / "disk", 2).Steps().empty()) EXPECT_FALSE(mirror.WaitFor(0.01));
  ASSERT_EQ(write(end, "one\ntwo\n", 8), 8);
  ASSERT_TRUE(mirror.WaitFor(60));
  close(end);
  const auto copied = mirror.TakeCopied();
  ASSERT_TRUE(copied);
  EXPECT_EQ(copied->step, 3);
  EXPECT_EQ(Checkpoints(folder_ / "disk", 2).Steps(), (std::vector<std::int64_t>{1, 3}));
}

}  // namespace
}  // namespace plural::trainer
