#include "trainer/run/progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <iostream>

#include "trainer/base/readable.h"

namespace plural::trainer {
namespace {

constexpr std::size_t kBarWidth = 24, kLeastBar = 8;

// The width of the terminal, which may have been resized.
std::size_t Columns() {
  winsize size{};
  if (::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col < 20) return 80;
  return size.ws_col;
}

std::string Spaced(const std::string& part) { return part.empty() ? "" : "  " + part; }

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
  const auto pause = terminal_ ? std::chrono::milliseconds(100) : std::chrono::milliseconds(5000);
  if (any_shown_ && done != total_ && now - shown_ < pause) return;
  Draw(done, note);
}

void Progress::Show(std::int64_t done, const std::string& note) {
  if (shows_ && terminal_) Draw(done, note);
}

void Progress::Draw(std::int64_t done, const std::string& note) {
  any_shown_ = true;
  shown_ = Clock::now();
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
  const std::string count =
      std::to_string(done) + (total_ > 0 ? "/" + std::to_string(total_) : "") + " " + unit_;
  const std::string shown = !note.empty() ? note : done > first_ ? FourDigits(rate) + " " + unit_ + "/s" : "";
  const std::string left =
      done < total_ && rate > 0 ? Duration(static_cast<double>(total_ - done) / rate) + " left" : "";
  const double full = static_cast<double>(done) / static_cast<double>(std::max<std::int64_t>(1, total_));
  const bool bar = terminal_ && total_ > 0;
  return FitLine(what_, bar ? full : -1.0, count, shown, left, terminal_ ? Columns() : 1000);
}

std::string FitLine(const std::string& what, double full, const std::string& count, const std::string& note,
                    const std::string& left, std::size_t columns) {
  std::string middle = note, end = left;
  const auto rest = [&] { return count + Spaced(middle) + Spaced(end); };
  // The last column stays free: a terminal may begin a new line when it is written to.
  const std::size_t room = columns - 1;
  const auto too_wide = [&] { return what.size() + 1 + rest().size() > room; };
  while (too_wide() && !middle.empty()) {
    const std::size_t gap = middle.rfind("  ");
    middle.resize(gap == std::string::npos ? 0 : gap);
  }
  if (too_wide()) end.clear();
  std::string text = what + " ";
  const std::size_t used = what.size() + 1 + rest().size() + 3;  // with "[] "
  if (full >= 0.0 && used + kLeastBar <= room) {
    const std::size_t width = std::min(kBarWidth, room - used);
    const auto filled = static_cast<std::size_t>(std::clamp(full, 0.0, 1.0) * static_cast<double>(width));
    text += "[" + std::string(filled, '#') + std::string(width - filled, '.') + "] ";
  }
  return (text + rest()).substr(0, room);
}

}  // namespace plural::trainer
