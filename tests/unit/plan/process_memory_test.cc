#include "trainer/plan/process_memory.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

namespace plural::trainer {
namespace {
namespace fs = std::filesystem;

class AvailableBytesTest : public ::testing::Test {
 protected:
  AvailableBytesTest() {
    std::string pattern = (fs::temp_directory_path() / "plural-memory-XXXXXX").string();
    folder_ = mkdtemp(pattern.data());
  }
  ~AvailableBytesTest() override { fs::remove_all(folder_); }
  void Write(const char* name, const std::string& text) { std::ofstream(folder_ / name) << text; }

  fs::path folder_;
};

// Numbers of bytes that every machine has to give.
TEST_F(AvailableBytesTest, TheControlGroupsLimitCountsLessWhatIsUsed) {
  Write("memory.max", "90000\n");
  Write("memory.current", "50000\n");
  EXPECT_EQ(AvailableBytes(folder_), 40000);
  Write("memory.stat", "anon 30000\nfile 20000\ninactive_file 15000\nactive_file 5000\n");
  EXPECT_EQ(AvailableBytes(folder_), 55000);
  Write("memory.current", "120000\n");
  EXPECT_EQ(AvailableBytes(folder_), 0);
}

TEST_F(AvailableBytesTest, WithoutALimitTheMachineCounts) {
  EXPECT_GT(AvailableBytes(folder_), 1 << 20);
  Write("memory.max", "max\n");
  Write("memory.current", "50000\n");
  EXPECT_GT(AvailableBytes(folder_), 1 << 20);
  Write("memory.max", "9000000000000000000\n");
  EXPECT_LT(AvailableBytes(folder_), 9'000'000'000'000'000'000 - 50000);
}

}  // namespace
}  // namespace plural::trainer
