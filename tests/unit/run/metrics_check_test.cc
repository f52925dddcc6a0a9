#include "trainer/run/metrics_check.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "trainer/base/error.h"

namespace plural::trainer {
namespace {
namespace fs = std::filesystem;

class MetricsCheckTest : public ::testing::Test {
 protected:
  MetricsCheckTest() {
    std::string pattern = (fs::temp_directory_path() / "plural-check-XXXXXX").string();
    path_ = fs::path(mkdtemp(pattern.data())) / "metrics.jsonl";
  }
  ~MetricsCheckTest() override { fs::remove_all(path_.parent_path()); }

  // Of a file with these lines: "start 0", "step 3".
  MetricsCheck Check(const std::vector<std::string>& lines, std::int64_t every) const {
    std::ofstream file(path_);
    for (const std::string& line : lines) {
      const std::size_t blank = line.find(' ');
      file << R"({"event":")" << line.substr(0, blank) << R"(","step":)" << line.substr(blank + 1) << "}\n";
    }
    file.close();
    return CheckMetrics(path_, every);
  }

  fs::path path_;
};

TEST_F(MetricsCheckTest, WhatARunWritesIsInOrder) {
  const std::vector<std::vector<std::string>> runs = {
      {"start 0", "step 1", "step 2", "pass 2", "validation 2", "checkpoint 2", "step 3", "end 3"},
      {"start 0", "step 1", "checkpoint 1", "resume 1", "step 2", "end 2"},
      {"start 0", "step 1", "resume 1", "resume 1", "validation 1", "step 2"},
      {"resume 7", "step 8", "end 8"},  // from another run's checkpoint
      {},
  };
  for (const auto& lines : runs) {
    const MetricsCheck check = Check(lines, 1);
    EXPECT_EQ(check.problem, "");
    EXPECT_EQ(check.lines, static_cast<std::int64_t>(lines.size()));
    EXPECT_EQ(check.bytes, static_cast<std::int64_t>(fs::file_size(path_)));
  }
  EXPECT_EQ(Check({"start 0", "step 4", "checkpoint 7", "resume 7", "step 8"}, 4).problem, "");
}

TEST_F(MetricsCheckTest, WhatIsMissingOrTwiceIsNamed) {
  const auto problem = [&](const std::vector<std::string>& lines, std::int64_t every) {
    return Check(lines, every).problem;
  };
  EXPECT_NE(problem({"start 0", "step 1", "step 3"}, 1).find("step 2 is missing"), std::string::npos);
  EXPECT_NE(problem({"start 0", "step 1", "resume 3", "step 4"}, 1).find("steps 2 to 3"), std::string::npos);
  EXPECT_NE(problem({"start 0", "step 4", "resume 9", "step 12"}, 4).find("missing"), std::string::npos);
  EXPECT_NE(problem({"start 0", "step 1", "step 1"}, 1).find("twice"), std::string::npos);
  EXPECT_NE(problem({"start 0", "step 1", "pass 0"}, 1).find("behind step 1"), std::string::npos);
  EXPECT_NE(problem({"start 0", "step 3", "step 4"}, 4).find("before its time"), std::string::npos);
  EXPECT_NE(problem({"step 1"}, 1).find("begin"), std::string::npos);
  EXPECT_NE(problem({"start x"}, 1), "");
}

TEST_F(MetricsCheckTest, WhatIsRightBeforeTheDamageIsCounted) {
  const MetricsCheck check = Check({"start 0", "step 1", "step 3", "step 4"}, 1);
  EXPECT_EQ(check.lines, 2);
  EXPECT_EQ(check.last_step, 1);
  EXPECT_EQ(check.bytes,
            2 * static_cast<std::int64_t>(std::string(R"({"event":"step","step":1})").size()) + 3);
  EXPECT_FALSE(check.cut);
  fs::resize_file(path_, fs::file_size(path_) - 1);
  EXPECT_FALSE(CheckMetrics(path_, 1).cut) << "the first problem is a line that is whole";
}

TEST_F(MetricsCheckTest, LinesThatAResumeSaysAreLostAreNotMissing) {
  std::ofstream(path_) << R"({"event":"start","step":0})"
                       << "\n"
                       << R"({"event":"step","step":1})"
                       << "\n"
                       << R"({"event":"resume","step":4,"lines_lost_after_step":1})"
                       << "\n"
                       << R"({"event":"step","step":5})"
                       << "\n";
  const MetricsCheck check = CheckMetrics(path_, 1);
  EXPECT_EQ(check.problem, "");
  EXPECT_EQ(check.lost, "steps 2 to 4");
  EXPECT_EQ(check.shown_step, 5);
  EXPECT_EQ(CheckMetrics(path_, 1, 4).lines, 3);
}

// A start of a checkpoint of step 4 that has seen everything up to its own line.
TEST_F(MetricsCheckTest, AStartGoesOnBehindTheLinesThatAreLeft) {
  const std::vector<std::string> lines = {"start 0", "step 2", "step 4", "checkpoint 4", "step 6"};
  Check(lines, 2);
  const auto size = [](const std::string& line) { return static_cast<std::int64_t>(line.size()) + 1; };
  const std::int64_t start = size(R"({"event":"start","step":0})"),
                     step = size(R"({"event":"step","step":2})");
  const std::int64_t committed = start + 2 * step + size(R"({"event":"checkpoint","step":4})");
  const auto left = [&](std::int64_t at_step) { return LeftOfMetrics(path_, committed, at_step, 2); };
  EXPECT_EQ(left(4).bytes, committed);
  EXPECT_FALSE(left(4).lost_after_step);
  // Cut within the line of step 4: what is whole stays.
  fs::resize_file(path_, static_cast<std::uintmax_t>(start + step + 5));
  EXPECT_EQ(left(4).bytes, start + step);
  EXPECT_EQ(left(4).lost_after_step, 2);
  // Long enough, and other lines: those of later steps go.
  Check({"start 0", "step 2", "step 4", "step 6", "step 8", "step 10"}, 2);
  EXPECT_EQ(left(4).bytes, start + 2 * step);
  fs::remove(path_);
  EXPECT_EQ(left(4).bytes, 0);
  EXPECT_EQ(left(4).lost_after_step, 0);
  EXPECT_FALSE(LeftOfMetrics(path_, 0, 4, 2).lost_after_step) << "begun at another run's checkpoint";
}

TEST_F(MetricsCheckTest, ALineWithoutItsEndIsTold) {
  Check({"start 0", "step 1"}, 1);
  fs::resize_file(path_, fs::file_size(path_) - 1);  // still JSON
  const MetricsCheck check = CheckMetrics(path_, 1);
  EXPECT_EQ(check.lines, 1);
  EXPECT_TRUE(check.cut);
  EXPECT_THROW(CheckMetrics(path_.parent_path(), 1), ExitError);
}

}  // namespace
}  // namespace plural::trainer
