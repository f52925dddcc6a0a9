// Counter: progress of a command that works through a known number of items.
//
// Owns: one rewritten line on a terminal, or a plain line about every ten seconds in a log, with rate and
// time left, on standard error. Does not own: training's line (trainer/progress.h). Thread rule: one thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace plural::trainer {

class Counter {
 public:
  // `what` is the verb and `items` the plural noun: "generate: 120 of 900 prompts, 8.1 prompts/s, 1 min 36 s
  // left". `total` 0: not known. Silent unless `shown` (rank 0).
  Counter(std::string what, std::string items, std::int64_t total, bool shown);
  ~Counter();

  void Update(std::int64_t done);

 private:
  using Clock = std::chrono::steady_clock;
  std::string what_, items_;
  std::int64_t total_;
  bool shown_, terminal_;
  bool bar_open_ = false;
  Clock::time_point start_, last_;
};

}  // namespace plural::trainer
