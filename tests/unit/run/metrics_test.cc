#include "trainer/run/metrics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>

#include "trainer/base/error.h"
#include "trainer/base/file_io.h"

namespace plural::trainer {
namespace {
namespace fs = std::filesystem;

class MetricsTest : public ::testing::Test {
 protected:
  MetricsTest() {
    std::string pattern = (fs::temp_directory_path() / "plural-metrics-XXXXXX").string();
    path_ = fs::path(mkdtemp(pattern.data())) / "metrics.jsonl";
  }
  ~MetricsTest() override { fs::remove_all(path_.parent_path()); }

  fs::path path_;
};

TEST_F(MetricsTest, OneObjectALineInTheOrderSet) {
  MetricsLog log(path_, 0);
  MetricsLine line;
  line["event"] = "step";
  line["loss"] = MetricsNumber(0.1);
  line["big"] = MetricsNumber(HUGE_VAL);
  line["none"] = MetricsNumber(std::nan(""));
  log.Write(line);
  log.Write({{"event", "end"}});
  const std::string expected =
      "{\"event\":\"step\",\"loss\":0.1,\"big\":\"inf\",\"none\":\"nan\"}\n{\"event\":\"end\"}\n";
  EXPECT_EQ(ReadFile(path_), expected);
  EXPECT_EQ(log.Bytes(), static_cast<std::int64_t>(expected.size()));
}

TEST_F(MetricsTest, LinesBeyondTheCommittedOnesAreCutOff) {
  std::int64_t committed = 0;
  {
    MetricsLog log(path_, 0);
    log.Write({{"step", 1}});
    committed = log.Bytes();
    log.Write({{"step", 2}});
  }
  MetricsLog log(path_, committed);
  log.Write({{"step", "again"}});
  EXPECT_EQ(ReadFile(path_), "{\"step\":1}\n{\"step\":\"again\"}\n");
}

TEST_F(MetricsTest, AFileShorterThanCommittedIsRefused) {
  { MetricsLog(path_, 0).Write({{"step", 1}}); }
  try {
    MetricsLog log(path_, 500);
    FAIL() << "accepted";
  } catch (const ExitError& error) {
    EXPECT_EQ(error.Code(), ExitCode::kBadData);
  }
  EXPECT_EQ(ReadFile(path_), "{\"step\":1}\n");
}

TEST_F(MetricsTest, AFileThatCannotBeMadeIsNamed) {
  try {
    MetricsLog log(path_ / "below" / "a-file", 0);
    FAIL() << "accepted";
  } catch (const ExitError& error) {
    EXPECT_EQ(error.Code(), ExitCode::kCannotCreate);
    EXPECT_NE(std::string(error.what()).find("a-file"), std::string::npos);
  }
}

}  // namespace
}  // namespace plural::trainer
