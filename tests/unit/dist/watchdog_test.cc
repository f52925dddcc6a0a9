#include "dist/watchdog.h"

#include <gtest/gtest.h>
#include <pthread.h>

#include <cmath>
#include <condition_variable>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <thread>

#include "dist/stacks.h"
#include "trainer/base/signals.h"

namespace plural::dist {
namespace {

double Of(const Deadlines& deadlines, Phase phase, bool waits = false, std::int64_t seen = 0,
          double longest = 0) {
  return Watchdog::DeadlineOf(deadlines, phase, waits, seen, longest);
}

TEST(DeadlineOf, EachPhaseHasItsKey) {
  const Deadlines deadlines{.start = 1, .load = 2, .step = 3, .checkpoint = 4, .validation = 5};
  EXPECT_EQ(Of(deadlines, Phase::kStart), 1);
  EXPECT_EQ(Of(deadlines, Phase::kEnd), 1);
  EXPECT_EQ(Of(deadlines, Phase::kLoad), 2);
  for (const Phase phase : {Phase::kData, Phase::kCompute, Phase::kSum}) EXPECT_EQ(Of(deadlines, phase), 3);
  EXPECT_EQ(Of(deadlines, Phase::kCheckpoint), 4);
  EXPECT_EQ(Of(deadlines, Phase::kValidation), 5);
  EXPECT_TRUE(std::isinf(Of(deadlines, Phase::kWork)));
}

TEST(DeadlineOf, StepsAreLearnt) {
  const Deadlines deadlines{.load = 1000};
  EXPECT_EQ(Of(deadlines, Phase::kCompute, false, 4, 2.0), 1000) << "too few steps to judge";
  EXPECT_EQ(Of(deadlines, Phase::kCompute, false, 5, 2.0), 120) << "at least two minutes";
  EXPECT_EQ(Of(deadlines, Phase::kCompute, false, 5, 30.0), 300);
}

TEST(DeadlineOf, WhoWaitsReportsLater) {
  const Deadlines deadlines{.step = 3};
  EXPECT_GT(Of(deadlines, Phase::kSum, true), Of(deadlines, Phase::kCompute, false) + 1);
}

TEST(DeadlineOf, NothingIsTooLongForAWatchdogThatIsOff) {
  const Deadlines deadlines{.enabled = false, .step = 3};
  for (const Phase phase : {Phase::kStart, Phase::kCompute, Phase::kCheckpoint}) {
    EXPECT_TRUE(std::isinf(Of(deadlines, phase)));
  }
}

TEST(Pulse, CountsEveryChange) {
  Pulse pulse;
  pulse.Enter(Phase::kCompute, 7);
  EXPECT_EQ(pulse.step, 7);
  const std::int64_t before = pulse.changes;
  {
    const Pulse::Waiting waiting(pulse);
    EXPECT_TRUE(pulse.waits);
    EXPECT_EQ(pulse.changes, before + 1);
  }
  EXPECT_FALSE(pulse.waits);
  EXPECT_EQ(pulse.changes, before + 2);
}

// Told anew while its thread watches, which the sanitizer of threads sees.
TEST(Watchdog, ReportsWhereItWasToldTo) {
  std::string folder = (std::filesystem::temp_directory_path() / "plural-watchdog-XXXXXX").string();
  ASSERT_NE(mkdtemp(folder.data()), nullptr);
  const std::filesystem::path report = std::filesystem::path(folder) / "stacks-00000.txt";
  StatusSignal::Hear();
  Watchdog watchdog{Deadlines{}};
  const std::shared_ptr<Pulse> pulse = watchdog.SharedPulse();
  for (std::int64_t step = 1; pulse->beats.load(std::memory_order_relaxed) < 3; ++step) {
    watchdog.Follow({.step = 60.0});
    watchdog.ReportIn(folder);
    watchdog.StepTook(0.5);
    pulse->Enter(Phase::kCompute, step);
  }
  std::raise(SIGUSR2);
  std::error_code error;
  while (std::filesystem::file_size(report, error) == 0 || error) std::this_thread::yield();
  watchdog.Stop();
  std::string line;
  std::ifstream written(report);
  std::getline(written, line);
  EXPECT_NE(line.find("asked by a signal; forward and backward"), std::string::npos) << line;
  std::filesystem::remove_all(folder);
}

TEST(StacksOfThreads, ShowWhereAnotherThreadWaits) {
  PrepareStacks();
  std::mutex mutex;
  std::condition_variable ready;
  bool waiting = false, over = false;
  std::thread other([&] {
    pthread_setname_np(pthread_self(), "the-other");
    std::unique_lock lock(mutex);
    waiting = true;
    ready.notify_all();
    ready.wait(lock, [&] { return over; });
  });
  {
    std::unique_lock lock(mutex);
    ready.wait(lock, [&] { return waiting; });
  }
  const std::string text = StacksOfThreads();
  {
    const std::lock_guard lock(mutex);
    over = true;
  }
  ready.notify_all();
  other.join();
  const auto at = text.find("the-other");
  ASSERT_NE(at, std::string::npos) << text;
  EXPECT_NE(text.find("pthread_cond_wait", at), std::string::npos) << text;
}

}  // namespace
}  // namespace plural::dist
