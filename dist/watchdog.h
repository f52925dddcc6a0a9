// The watchdog: ends a job that hangs, soon and with the reason.
//
// Owns: the thread that watches this rank's pulse, the guard beside it, deadlines, what is written when one
// has passed. Does not own: what the rank does (pulse.h), how a job ends (world.h). Thread rule: made and
// destroyed by the main thread, before all other threads and behind World; Keep, Follow, ReportIn and
// StepTook are its alone as well.
//
// A rank whose main thread stays at one thing for longer than its deadline reports that and ends the job
// with 76. A rank that waits for others has five seconds more, so that the one that hangs is the one that
// reports; where that one cannot (its machine is gone), those that wait name the ranks that are behind, by
// their last status.
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "dist/guard.h"
#include "dist/pulse.h"

namespace plural::dist {

class World;

// In seconds, of one thing without any change.
struct Deadlines {
  bool enabled = true;
  double start = 300.0;  // until MPI has found all ranks, and again at the end
  double load = 3600.0;  // also of steps, until five have been seen
  double step =
      0.0;  // of data, forward and backward, and sum; 0: ten times the longest, at least two minutes
  double checkpoint = 1800.0;
  double validation = 86400.0;
};

class Watchdog {
 public:
  // Watches the start by `deadlines`. A process that no launcher started has no guard: it may be stopped and
  // continued at a terminal.
  explicit Watchdog(const Deadlines& deadlines);
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  std::shared_ptr<Pulse> SharedPulse() const { return pulse_; }
  // From here the job ends through MPI.
  void Keep(const World& world);
  // From here by these deadlines.
  void Follow(const Deadlines& deadlines);
  // From here with this rank's status and reports in `folder`, which is there and all ranks share.
  void ReportIn(const std::filesystem::path& folder);
  // What a step took this rank, its wait for the slowest one included.
  void StepTook(double seconds);
  // Ends the watching, before something else ends the process.
  void Stop();

  // In seconds of one phase; infinity where nothing is too long.
  static double DeadlineOf(const Deadlines& deadlines, Phase phase, bool waits, std::int64_t steps_seen,
                           double longest_step);

 private:
  struct Followed {  // by the thread, under the lock
    Deadlines deadlines;
    std::filesystem::path folder;
    int ranks = 0;  // 0: MPI has not started
    std::string host;
  };

  void Run();
  Followed Copy();
  void WriteStatus(const Followed& followed) const;
  [[noreturn]] void Hang(const Followed& followed, double seconds) const;
  void DumpStacks(const Followed& followed, const std::string& why) const;
  [[noreturn]] void EndJob(const Followed& followed) const;

  const std::shared_ptr<Pulse> pulse_;
  std::unique_ptr<Guard> guard_;
  std::mutex mutex_;
  std::condition_variable stopping_;
  bool stop_ = false;
  Followed followed_;
  std::atomic<std::int64_t> steps_seen_ = 0;
  std::atomic<double> longest_step_ = 0.0;
  std::thread thread_;
};

}  // namespace plural::dist
