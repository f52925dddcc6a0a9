#include "trainer/plan/control_groups.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "trainer/plan/process_memory.h"
#include "trainer/plan/usable_cores.h"

namespace plural::trainer {
namespace {
namespace fs = std::filesystem;

class ControlGroupsTest : public ::testing::Test {
 protected:
  ControlGroupsTest() {
    std::string pattern = (fs::temp_directory_path() / "plural-groups-XXXXXX").string();
    folder_ = mkdtemp(pattern.data());
    mount_ = folder_ / "mount";
    fs::create_directories(mount_ / "slurm/job_1/step_0");
  }
  ~ControlGroupsTest() override { fs::remove_all(folder_); }

  fs::path In(const std::string& path) const {
    std::ofstream(folder_ / "own") << "1:name=systemd:/x\n0::" << path << "\n";
    return folder_ / "own";
  }

  fs::path folder_, mount_;
};

TEST_F(ControlGroupsTest, FromTheInsideOut) {
  using Paths = std::vector<fs::path>;
  EXPECT_EQ(ControlGroups(mount_, In("/slurm/job_1")),
            (Paths{mount_ / "slurm/job_1", mount_ / "slurm", mount_}));
  EXPECT_EQ(ControlGroups(mount_, In("/")), Paths{mount_});
  EXPECT_EQ(ControlGroups(mount_, In("/../../system.slice")), Paths{mount_});
  EXPECT_EQ(ControlGroups(mount_, folder_ / "none"), Paths{mount_});
}

// A limit holds for all that is inside of its group, and the smallest of several counts.
TEST_F(ControlGroupsTest, LimitsOfOuterGroupsHold) {
  const fs::path own = In("/slurm/job_1/step_0");
  const auto write = [&](const char* file, const std::string& text) { std::ofstream(mount_ / file) << text; };
  write("slurm/job_1/memory.max", "90000\n");
  write("slurm/job_1/memory.current", "50000\n");
  EXPECT_EQ(AvailableBytes(mount_, own), 40000);
  write("slurm/memory.max", "60000\n");
  write("slurm/memory.current", "55000\n");
  EXPECT_EQ(AvailableBytes(mount_, own), 5000);
  EXPECT_GT(AvailableBytes(mount_, In("/other")), 5000);

  write("slurm/job_1/cpu.max", "100000 100000\n");
  write("slurm/cpu.max", "max 100000\n");
  EXPECT_EQ(UsableCores(mount_, In("/slurm/job_1/step_0")), 1);
  EXPECT_EQ(UsableCores(mount_, In("/other")), UsableCores(folder_ / "none", folder_ / "none"));
}

}  // namespace
}  // namespace plural::trainer
