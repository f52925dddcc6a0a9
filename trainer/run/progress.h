// Progress: what a person sees while a command works.
//
// Owns: one line that is rewritten on a terminal and never wider than it is then, or a plain line now and
// then in a log. Does not own: the figures of record (metrics.h). Thread rule: one thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <iostream>
#include <string>

namespace plural::trainer {

class Progress {
 public:
  // "<what> 12/300 <unit>". `shows`: false on all ranks but one, where nothing is printed. `done`: how many
  // of `total` an earlier start did. `total` 0: not known. Give std::cerr where standard output is a result.
  Progress(std::string what, std::string unit, std::int64_t total, bool shows, std::int64_t done = 0,
           std::ostream& out = std::cout);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // `note` stands between the count and the time left; without one the rate does. Its parts are separated by
  // two spaces: the last ones are left out where a terminal is narrow. On a terminal at most ten times a
  // second, else about every five seconds.
  void Update(std::int64_t done, const std::string& note = "");
  // The same on a terminal at once, elsewhere not at all: for what takes long after an Update.
  void Show(std::int64_t done, const std::string& note);
  // A line of its own, above the bar.
  void Say(const std::string& line);
  // Leaves the last line standing.
  void Finish();

  double Seconds() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }

 private:
  using Clock = std::chrono::steady_clock;
  std::string Text(std::int64_t done, const std::string& note) const;
  void Draw(std::int64_t done, const std::string& note);

  const std::string what_, unit_;
  const std::int64_t total_, first_;
  const bool shows_, terminal_;
  std::ostream& out_;
  bool bar_shown_ = false;
  bool any_shown_ = false;
  Clock::time_point start_ = Clock::now();
  Clock::time_point shown_;
};

// One line of progress: at most `columns` wide. The bar of `full` (0 to 1) takes what is left, 24 columns at
// most, none below 8; then parts of `note`, which two spaces separate, are left out from the last one on.
std::string FitLine(const std::string& what, double full, const std::string& count, const std::string& note,
                    const std::string& left, std::size_t columns);

}  // namespace plural::trainer
