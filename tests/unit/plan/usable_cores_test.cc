#include "trainer/plan/usable_cores.h"

#include <gtest/gtest.h>
#include <sched.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

namespace plural::trainer {
namespace {

class UsableCoresTest : public ::testing::Test {
 protected:
  UsableCoresTest() {
    std::string pattern = (std::filesystem::temp_directory_path() / "plural-cores-XXXXXX").string();
    folder_ = mkdtemp(pattern.data());
    sched_getaffinity(0, sizeof(before_), &before_);
  }
  ~UsableCoresTest() override {
    sched_setaffinity(0, sizeof(before_), &before_);
    std::filesystem::remove_all(folder_);
  }
  void Quota(const std::string& text) { std::ofstream(folder_ / "cpu.max") << text; }

  std::filesystem::path folder_;
  cpu_set_t before_;
};

TEST_F(UsableCoresTest, AffinityCounts) {
  const int all = CPU_COUNT(&before_);
  EXPECT_EQ(UsableCores(folder_), all);
  Quota("max 100000\n");
  EXPECT_EQ(UsableCores(folder_), all);
  int first = 0;
  while (!CPU_ISSET(first, &before_)) ++first;
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(first, &one);
  ASSERT_EQ(sched_setaffinity(0, sizeof(one), &one), 0);
  EXPECT_EQ(UsableCores(folder_), 1);
}

TEST_F(UsableCoresTest, TheControlGroupsQuotaCountsInWholeCores) {
  Quota("150000 100000\n");
  EXPECT_EQ(UsableCores(folder_), 1);
  Quota("50000 100000\n");  // half a core still computes
  EXPECT_EQ(UsableCores(folder_), 1);
  Quota("900000000 100000\n");
  EXPECT_EQ(UsableCores(folder_), CPU_COUNT(&before_));
  Quota("nonsense");
  EXPECT_EQ(UsableCores(folder_), CPU_COUNT(&before_));
}

}  // namespace
}  // namespace plural::trainer
