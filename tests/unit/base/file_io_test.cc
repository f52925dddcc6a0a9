#include "trainer/base/file_io.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <cstdlib>
#include <set>
#include <string>

#include "trainer/base/error.h"

namespace plural::trainer {
namespace {
namespace fs = std::filesystem;

class FileIoTest : public ::testing::Test {
 protected:
  FileIoTest() {
    std::string pattern = (fs::temp_directory_path() / "plural-file-io-XXXXXX").string();
    folder_ = mkdtemp(pattern.data());
  }
  ~FileIoTest() override { fs::remove_all(folder_); }

  // The names in the folder, sorted, with a space between.
  std::string Listing() const {
    std::set<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder_)) names.insert(entry.path().filename());
    std::string joined;
    for (const std::string& name : names) joined += (joined.empty() ? "" : " ") + name;
    return joined;
  }

  fs::path folder_;
};

// The code of the error that `action` throws; fails the test when it throws none.
template <typename Action>
ExitCode CodeOf(Action action, const std::string& word) {
  try {
    action();
  } catch (const ExitError& error) {
    EXPECT_NE(std::string(error.what()).find(word), std::string::npos) << error.what();
    return error.Code();
  }
  ADD_FAILURE() << "nothing was thrown";
  return ExitCode::kDone;
}

TEST_F(FileIoTest, WritesReplacesAndReadsBack) {
  const std::string zero_inside("a\0b\n", 4);
  WriteFileDurably(folder_ / "x", zero_inside);
  EXPECT_EQ(ReadFile(folder_ / "x"), zero_inside);
  WriteFileDurably(folder_ / "x", "");
  EXPECT_EQ(ReadFile(folder_ / "x"), "");
  EXPECT_EQ(Listing(), "x");
}

TEST_F(FileIoTest, NamesWhatCannotBeReadOrCreated) {
  EXPECT_EQ(CodeOf([&] { ReadFile(folder_ / "absent"); }, "absent"), ExitCode::kMissingInput);
  EXPECT_EQ(CodeOf([&] { ReadFile(folder_); }, "directory"), ExitCode::kMissingInput);
  EXPECT_EQ(CodeOf([&] { WriteFileDurably(folder_ / "no" / "x", "1"); }, "No such file"),
            ExitCode::kCannotCreate);
  EXPECT_EQ(CodeOf([&] { WriteFileDurably("/", "1"); }, "no last name"), ExitCode::kCannotCreate);
  OutputFile first(folder_ / "once");
  EXPECT_EQ(CodeOf([&] { OutputFile second(folder_ / "once"); }, "exists"), ExitCode::kCannotCreate);
}

TEST_F(FileIoTest, UncommittedFileLeavesTheOldOneAlone) {
  WriteFileDurably(folder_ / "x", "old");
  {
    PendingFile file(folder_ / "x");
    file.Write("new");
    EXPECT_EQ(file.Size(), 3);
  }
  EXPECT_EQ(ReadFile(folder_ / "x"), "old");
  EXPECT_EQ(Listing(), "x");
}

// A full disk, as far as a process can make one for itself: the file size limit.
TEST_F(FileIoTest, FailedWriteIsReportedAndCleanedUp) {
  WriteFileDurably(folder_ / "x", "old");
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{4096, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const ExitCode code =
      CodeOf([&] { WriteFileDurably(folder_ / "x", std::string(8192, 'z')); }, "cannot write");
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  std::signal(SIGXFSZ, handler);
  EXPECT_EQ(code, ExitCode::kCheckpointWrite);
  EXPECT_EQ(ReadFile(folder_ / "x"), "old");
  EXPECT_EQ(Listing(), "x");
}

TEST_F(FileIoTest, FolderAppearsWholeOrNotAtAll) {
  {
    PendingFolder pending(folder_ / "step");
    WriteFileDurably(pending.Path() / "a", "1");
  }
  EXPECT_EQ(Listing(), "");
  PendingFolder pending(folder_ / "step/");  // as users complete it
  fs::create_directory(pending.Path() / "inner");
  WriteFileDurably(pending.Path() / "inner" / "a", "1");
  EXPECT_FALSE(fs::exists(folder_ / "step"));
  pending.Commit();
  EXPECT_EQ(Listing(), "step");
  EXPECT_EQ(ReadFile(folder_ / "step" / "inner" / "a"), "1");
}

TEST_F(FileIoTest, FolderReplacesOnlyWhenTold) {
  fs::create_directory(folder_ / "step");  // empty: rename(2) alone would replace it
  {
    PendingFolder pending(folder_ / "step");
    EXPECT_EQ(CodeOf([&] { pending.Commit(); }, "exists"), ExitCode::kCannotCreate);
  }
  EXPECT_EQ(Listing(), "step");
  WriteFileDurably(folder_ / "step" / "old", "1");
  PendingFolder pending(folder_ / "step");
  WriteFileDurably(pending.Path() / "new", "2");
  pending.Commit(PendingFolder::IfExists::kReplace);
  EXPECT_EQ(Listing(), "step");
  EXPECT_FALSE(fs::exists(folder_ / "step" / "old"));
  EXPECT_EQ(ReadFile(folder_ / "step" / "new"), "2");
}

}  // namespace
}  // namespace plural::trainer
