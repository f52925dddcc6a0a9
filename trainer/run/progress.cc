#include "trainer/run/progress.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <iostream>

namespace plural::trainer {
namespace {

constexpr int kBarWidth = 24;

std::string Duration(double seconds) {
  const auto whole = static_cast<long long>(seconds + 0.5);
  char text[48];
  if (whole >= 3600) {
    std::snprintf(text, sizeof(text), "%lld h %02lld min", whole / 3600, whole / 60 % 60);
  } else if (whole >= 60) {
    std::snprintf(text, sizeof(text), "%lld min %02lld s", whole / 60, whole % 60);
  } else {
    std::snprintf(text, sizeof(text), "%lld s", whole);
  }
  return text;
}

}  // namespace

Progress::Progress(std::string what, std::string unit, std::int64_t total, bool shows, std::int64_t done,
                   std::ostream& out)
    : what_(std::move(what)),
      unit_(std::move(unit)),
      total_(total),
      first_(done),
      shows_(shows),
      // mpirun gives ranks a terminal of its own as standard output, wherever that goes in the end, but never
      // as standard error.
      terminal_(isatty(STDOUT_FILENO) != 0 && isatty(STDERR_FILENO) != 0),
      out_(out) {}

Progress::~Progress() { Finish(); }

void Progress::Update(std::int64_t done, const std::string& note) {
  if (!shows_) return;
  const auto now = Clock::now();
  const auto pause = terminal_ ? std::chrono::milliseconds(100) : std::chrono::milliseconds(10000);
  if (any_shown_ && done != total_ && now - shown_ < pause) return;
  any_shown_ = true;
  shown_ = now;
  if (terminal_) {
    out_ << "\r\033[K" << Text(done, note) << std::flush;
    bar_shown_ = true;
  } else {
    out_ << Text(done, note) << std::endl;
  }
}

void Progress::Say(const std::string& line) {
  if (!shows_) return;
  if (bar_shown_) out_ << "\r\033[K";
  bar_shown_ = false;
  out_ << line << std::endl;
}

void Progress::Finish() {
  if (bar_shown_) out_ << std::endl;
  bar_shown_ = false;
}

std::string Progress::Text(std::int64_t done, const std::string& note) const {
  const double seconds = std::max(1e-9, Seconds());
  const double rate = static_cast<double>(done - first_) / seconds;
  std::string text = what_ + " ";
  if (terminal_ && total_ > 0) {
    const auto full =
        std::clamp<std::int64_t>(kBarWidth * done / std::max<std::int64_t>(1, total_), 0, kBarWidth);
    text += "[" + std::string(static_cast<std::size_t>(full), '#') +
            std::string(static_cast<std::size_t>(kBarWidth - full), '.') + "] ";
  }
  text += std::to_string(done) + (total_ > 0 ? "/" + std::to_string(total_) : "") + " " + unit_ + "  ";
  if (note.empty()) {
    char number[48];
    std::snprintf(number, sizeof(number), "%.2f ", rate);
    text += number + unit_ + "/s";
  } else {
    text += note;
  }
  if (done < total_ && rate > 0) text += "  " + Duration(static_cast<double>(total_ - done) / rate) + " left";
  return text;
}

}  // namespace plural::trainer
