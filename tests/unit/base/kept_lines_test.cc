#include "trainer/base/kept_lines.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <string>

#include "trainer/base/error.h"
#include "trainer/base/file_io.h"

namespace plural::trainer {
namespace {

class KeptLinesTest : public ::testing::Test {
 protected:
  KeptLinesTest() {
    std::string pattern = (std::filesystem::temp_directory_path() / "plural-kept-XXXXXX").string();
    folder_ = mkdtemp(pattern.data());
    target_ = folder_ / "out.jsonl";
    partial_ = folder_ / "out.jsonl.partial";
  }
  ~KeptLinesTest() override { std::filesystem::remove_all(folder_); }

  std::string Refusal(const std::string& identity) const {
    try {
      KeptLines lines(target_, identity);
    } catch (const ExitError& error) {
      EXPECT_EQ(error.Code(), ExitCode::kCannotCreate);
      return error.what();
    }
    return "";
  }

  std::filesystem::path folder_, target_, partial_;
};

TEST_F(KeptLinesTest, GoesOnBehindWholeLinesAndEndsAsOneFile) {
  { KeptLines(target_, "work 1").Write("a\nb\n"); }
  EXPECT_FALSE(std::filesystem::exists(target_));
  std::ofstream(partial_, std::ios::app) << "half of a li";
  KeptLines again(target_, "work 1");
  EXPECT_EQ(again.Found(), (std::vector<std::string>{"a", "b"}));
  again.Write("c\n");
  again.Commit();
  EXPECT_EQ(ReadFile(target_), "a\nb\nc\n");
}

TEST_F(KeptLinesTest, LinesOfOtherWorkAreNeitherMixedInNorLost) {
  { KeptLines(target_, "work 1").Write("a\n"); }
  EXPECT_NE(Refusal("work 2").find("other options"), std::string::npos);
  EXPECT_NE(Refusal("work").find("other options"), std::string::npos) << "a beginning is not the same";
  EXPECT_EQ(ReadFile(partial_), "work 1\na\n");
}

TEST_F(KeptLinesTest, WithoutLinesNothingStays) {
  { KeptLines unused(target_, "work"); }
  EXPECT_TRUE(std::filesystem::is_empty(folder_));
  std::ofstream(partial_) << "other work\n";  // a start that was killed before its first line
  {
    KeptLines whole(target_, "work");
    whole.Write("a\n");
    whole.Commit();
  }
  EXPECT_FALSE(std::filesystem::exists(partial_));
}

TEST_F(KeptLinesTest, OneWriterAtATimeAndRegularFilesOnly) {
  const KeptLines first(target_, "work");
  EXPECT_NE(Refusal("work").find("another process"), std::string::npos);
  target_ = folder_;
  EXPECT_NE(Refusal("work").find("no regular file"), std::string::npos);
}

}  // namespace
}  // namespace plural::trainer
