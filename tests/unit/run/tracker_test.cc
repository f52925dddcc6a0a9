#include "trainer/run/tracker.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <thread>

#include "trainer/base/file_io.h"

namespace plural::trainer {
namespace {
namespace fs = std::filesystem;

class TrackerTest : public ::testing::Test {
 protected:
  TrackerTest() {
    std::string pattern = (fs::temp_directory_path() / "plural-tracker-XXXXXX").string();
    run_ = mkdtemp(pattern.data());
    fs::create_directories(run_ / "log");
  }
  ~TrackerTest() override { fs::remove_all(run_); }

  fs::path Script(const std::string& text) const {
    const fs::path path = run_ / "program";
    std::ofstream(path) << "#!/bin/sh\n" << text;
    chmod(path.c_str(), 0755);
    return path;
  }
  // What the rank's log has after a start.
  std::string LogOf(const fs::path& program) const {
    {
      RunLog log(run_ / "log/rank-00000.log", false);
      StartTracker(program, run_, log);
    }
    return ReadFile(run_ / "log/rank-00000.log");
  }
  // The tracker's output, once its last line is there: nobody waits for the process itself.
  std::string Output() const {
    for (int attempt = 0; attempt < 3000; ++attempt) {
      const fs::path file = run_ / "log/track.log";
      if (fs::exists(file)) {
        const std::string text = ReadFile(file);
        if (text.ends_with("end\n")) return text;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return "no end";
  }

  fs::path run_;
};

TEST_F(TrackerTest, IsAProcessOfItsOwn) {
  const int kept_open = open("/dev/null", O_RDONLY);  // as pipes of mpirun are: without O_CLOEXEC
  setenv("OMPI_COMM_WORLD_SIZE", "4", 1);
  const fs::path program = Script(
      "echo \"$1 $2 $3\"\n"
      "echo input $(readlink /proc/self/fd/0)\n"
      "echo size ${OMPI_COMM_WORLD_SIZE:-none}\n"
      "echo session $(cut -d' ' -f6 /proc/$$/stat) of $$\n"
      "echo nice $(cut -d' ' -f19 /proc/$$/stat)\n"
      "[ -e /proc/$$/fd/" +
      std::to_string(kept_open) + " ] && echo open\necho problem >&2\necho end\n");
  EXPECT_EQ(LogOf(program), "");
  unsetenv("OMPI_COMM_WORLD_SIZE");
  close(kept_open);
  std::istringstream output(Output());
  std::string line, word, session, of, process;
  std::getline(output, line);
  EXPECT_EQ(line, "track " + run_.string() + " --follow");
  std::getline(output, line);
  EXPECT_EQ(line, "input /dev/null");
  std::getline(output, line);
  EXPECT_EQ(line, "size none");
  std::getline(output, line);
  std::istringstream(line) >> word >> session >> of >> process;
  EXPECT_EQ(session, process);
  std::getline(output, line);
  EXPECT_EQ(line, "nice 19");
  std::getline(output, line);
  EXPECT_EQ(line, "problem");
}

TEST_F(TrackerTest, WhatCannotBeStartedIsAWarning) {
  EXPECT_NE(LogOf("").find(" warning no tracker is started"), std::string::npos);
  const std::string log = LogOf(run_ / "absent");
  EXPECT_NE(log.find("absent: No such file"), std::string::npos) << log;
  EXPECT_NE(log.find("`plural track " + run_.string() + "` sends the figures later"), std::string::npos);
}

TEST_F(TrackerTest, OneThatFailsIsNotLookedAt) {
  EXPECT_EQ(LogOf(Script("echo end\nexit 1\n")), "");
  EXPECT_EQ(Output(), "end\n");
}

}  // namespace
}  // namespace plural::trainer
