#include "trainer/commands/counter.h"

#include <unistd.h>

#include <cstdio>
#include <utility>

namespace plural::trainer {
namespace {

std::string Duration(double seconds) {
  const auto whole = static_cast<std::int64_t>(seconds + 0.5);
  if (whole < 60) return std::to_string(whole) + " s";
  if (whole < 3600) return std::to_string(whole / 60) + " min " + std::to_string(whole % 60) + " s";
  return std::to_string(whole / 3600) + " h " + std::to_string(whole % 3600 / 60) + " min";
}

}  // namespace

Counter::Counter(std::string what, std::string items, std::int64_t total, bool shown)
    : what_(std::move(what)),
      items_(std::move(items)),
      total_(total),
      shown_(shown),
      terminal_(isatty(STDERR_FILENO) == 1),
      start_(Clock::now()),
      last_(start_) {}

Counter::~Counter() {
  if (bar_open_) std::fputc('\n', stderr);
}

void Counter::Update(std::int64_t done) {
  if (!shown_) return;
  const auto now = Clock::now();
  if (now - last_ < (terminal_ ? std::chrono::milliseconds(100) : std::chrono::seconds(10))) return;
  last_ = now;
  const double seconds = std::chrono::duration<double>(now - start_).count();
  const double rate = static_cast<double>(done) / seconds;
  char text[64];
  std::snprintf(text, sizeof(text), "%.3g", rate);
  std::string line = what_ + ": " + std::to_string(done);
  if (total_ > 0) line += " of " + std::to_string(total_);
  line += " " + items_ + ", " + text + " " + items_ + "/s";
  if (total_ > 0 && rate > 0) line += ", " + Duration(static_cast<double>(total_ - done) / rate) + " left";
  if (terminal_) {
    std::fprintf(stderr, "\r\x1b[K%s", line.c_str());
    bar_open_ = true;
  } else {
    std::fprintf(stderr, "%s\n", line.c_str());
  }
  std::fflush(stderr);
}

}  // namespace plural::trainer
