#include "dist/watchdog.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <ctime>
#include <fstream>
#include <limits>
#include <sstream>
#include <vector>

#include "dist/stacks.h"
#include "dist/world.h"
#include "trainer/base/error.h"
#include "trainer/base/signals.h"

namespace plural::dist {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kTurn{200};
// A turn that took longer was a pause of the whole process, or of its machine.
constexpr double kLongestTurn = 2.0;
constexpr double kWaitingExtra = 5.0;
constexpr double kLeastStep = 120.0;  // file systems stand still for a minute when their server changes
constexpr double kStepFactor = 10.0;
constexpr std::int64_t kStepsToLearn = 5;
constexpr double kStatusEvery = 10.0;
constexpr int kMostNamed = 8;
constexpr std::chrono::seconds kReporting{8};

double Seconds(Clock::duration duration) { return std::chrono::duration<double>(duration).count(); }

std::string Digits(int rank) {
  char text[16];
  std::snprintf(text, sizeof(text), "%05d", rank);
  return text;
}

std::string UtcTime() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  char text[32];
  std::strftime(text, sizeof(text), "%FT%TZ", &parts);
  return text;
}

std::string Whole(double seconds) {
  std::ostringstream text;
  text.precision(seconds < 10 ? 2 : 4);
  text << seconds;
  return text.str();
}

std::string HostName() {
  char text[256] = "?";
  gethostname(text, sizeof(text) - 1);
  return text;
}

fs::path StatusFile(const fs::path& folder, int rank) { return folder / ("status-" + Digits(rank)); }
// Its presence tells the ranks that a TERM which the launcher sends now comes from a hang.
fs::path HangMark(const fs::path& folder) { return folder / "hang"; }

// What a rank's status file says: "rank host step phase", with the count of changes first.
struct Status {
  int rank = 0;
  std::int64_t changes = 0, step = 0;
  bool waits = false;
  std::string host, phase;
};

bool ReadStatus(const fs::path& folder, int rank, Status& status) {
  std::ifstream file(StatusFile(folder, rank));
  status.rank = rank;
  if (!(file >> status.changes >> status.step >> status.waits >> status.host)) return false;
  std::getline(file >> std::ws, status.phase);
  return true;
}

// "; rank 3 on node7 is behind: checkpoint of step 12". Of ranks that wait in the same step nobody can tell.
std::string RanksBehind(const fs::path& folder, const Pulse& pulse, int size) {
  std::string text;
  int named = 0;
  for (int rank = 0; rank < size && !folder.empty(); ++rank) {
    Status status;
    if (rank == pulse.rank.load()) continue;
    const bool told = ReadStatus(folder, rank, status);
    if (told && status.waits && status.step >= pulse.step.load()) continue;
    if (++named > kMostNamed) continue;
    text +=
        (text.empty() ? "; by their last status these are behind: rank " : ", rank ") + std::to_string(rank);
    text += told ? " on " + status.host + " (" + status.phase + ", step " + std::to_string(status.step) + ")"
                 : " (it has told nothing)";
  }
  if (named > kMostNamed) text += " and " + std::to_string(named - kMostNamed) + " more";
  return text;
}

}  // namespace

double Watchdog::DeadlineOf(const Deadlines& deadlines, Phase phase, bool waits, std::int64_t steps_seen,
                            double longest_step) {
  constexpr double kNever = std::numeric_limits<double>::infinity();
  if (!deadlines.enabled) return kNever;
  const double extra = waits ? kWaitingExtra : 0.0;
  switch (phase) {
    case Phase::kStart:
    case Phase::kEnd:
      return deadlines.start + extra;
    case Phase::kWork:
      return kNever;
    case Phase::kLoad:
      return deadlines.load + extra;
    case Phase::kData:
    case Phase::kCompute:
    case Phase::kSum:
      if (deadlines.step > 0.0) return deadlines.step + extra;
      if (steps_seen < kStepsToLearn) return deadlines.load + extra;
      return std::max(kLeastStep, kStepFactor * longest_step) + extra;
    case Phase::kCheckpoint:
      return deadlines.checkpoint + extra;
    case Phase::kValidation:
      return deadlines.validation + extra;
  }
  return kNever;
}

Watchdog::Watchdog(const Deadlines& deadlines) : pulse_(dist::SharedPulse()) {
  followed_.deadlines = deadlines;
  pulse_->rank.store(World::LaunchedRank());
  PrepareStacks();
  if (World::HasLauncher()) guard_ = std::make_unique<Guard>(*pulse_);
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);  // signals are the main thread's
  thread_ = std::thread([this] { Run(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

Watchdog::~Watchdog() { Stop(); }

void Watchdog::Stop() {
  guard_.reset();
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  stopping_.notify_one();
  if (thread_.joinable() && thread_.get_id() != std::this_thread::get_id()) thread_.join();
}

void Watchdog::Keep(const World& world) {
  const std::lock_guard lock(mutex_);
  followed_.ranks = world.Size();
  followed_.host = world.Host();
  pulse_->rank.store(world.Rank());
}

void Watchdog::Follow(const Deadlines& deadlines) {
  pulse_->guarded.store(deadlines.enabled);
  const std::lock_guard lock(mutex_);
  followed_.deadlines = deadlines;
}

void Watchdog::ReportIn(const fs::path& folder) {
  std::error_code ignored;
  if (pulse_->rank.load() == 0) fs::remove(HangMark(folder), ignored);  // an earlier start's
  const std::lock_guard lock(mutex_);
  followed_.folder = folder;
}

void Watchdog::StepTook(double seconds) {
  longest_step_.store(std::max(longest_step_.load(), seconds));
  steps_seen_.fetch_add(1);
}

Watchdog::Followed Watchdog::Copy() {
  const std::lock_guard lock(mutex_);
  return followed_;
}

void Watchdog::Run() {
  std::int64_t seen = -1;
  double here = 0.0, since_status = kStatusEvery;
  bool asked_to_stop = false;
  auto last = Clock::now();
  for (;;) {
    {
      std::unique_lock lock(mutex_);
      if (stopping_.wait_for(lock, kTurn, [this] { return stop_; })) return;
    }
    pulse_->beats.fetch_add(1);
    const auto now = Clock::now();
    const double turn = std::min(Seconds(now - last), kLongestTurn);
    last = now;
    const std::int64_t changes = pulse_->changes.load(std::memory_order_acquire);
    here = changes == seen ? here + turn : 0.0;
    seen = changes;
    const Followed followed = Copy();

    if (pulse_->condemned.load()) {  // the guard has said why
      if (!followed.folder.empty()) DumpStacks(followed, "this rank did not run");
      EndJob(followed);
    }
    if (StatusSignal::Take()) DumpStacks(followed, "asked by a signal");
    if (StopSignal().Requested() && !asked_to_stop) {
      asked_to_stop = true;
      std::error_code error;
      if (!followed.folder.empty() && fs::exists(HangMark(followed.folder), error)) {
        DumpStacks(followed, "another rank hangs");
      }
    }
    since_status += turn;
    if (since_status >= kStatusEvery && !followed.folder.empty() && followed.ranks > 1) {
      since_status = 0.0;
      WriteStatus(followed);
    }
    if (here > DeadlineOf(followed.deadlines, pulse_->phase.load(), pulse_->waits.load(), steps_seen_.load(),
                          longest_step_.load())) {
      Hang(followed, here);
    }
  }
}

// Whole at any moment, since others may read it: written aside and renamed. What cannot be written costs a
// name in a report.
void Watchdog::WriteStatus(const Followed& followed) const {
  const fs::path file = StatusFile(followed.folder, pulse_->rank.load());
  const fs::path aside = file.string() + "~";
  {
    std::ofstream out(aside, std::ios::trunc);
    out << pulse_->changes.load() << ' ' << pulse_->step.load() << ' ' << pulse_->waits.load() << ' '
        << followed.host << ' ' << PhaseName(pulse_->phase.load()) << '\n';
    if (!out.flush()) return;
  }
  std::error_code ignored;
  fs::rename(aside, file, ignored);
}

void Watchdog::DumpStacks(const Followed& followed, const std::string& why) const {
  const std::string head = UtcTime() + " rank " + std::to_string(pulse_->rank.load()) + " on " + HostName() +
                           ", process " + std::to_string(getpid()) + ": " + why + "; " +
                           PhaseName(pulse_->phase.load()) +
                           (pulse_->waits.load() ? ", waiting for other ranks" : "") + ", step " +
                           std::to_string(pulse_->step.load()) + "\n";
  const std::string text = head + StacksOfThreads();
  if (followed.folder.empty()) {
    std::fwrite(text.data(), 1, text.size(), stderr);
    return;
  }
  std::ofstream(followed.folder / ("stacks-" + Digits(pulse_->rank.load()) + ".txt"), std::ios::app) << text;
}

void Watchdog::Hang(const Followed& followed, double seconds) const {
  const int rank = pulse_->rank.load();
  const Phase phase = pulse_->phase.load();
  const bool waits = pulse_->waits.load();
  std::string what = "rank " + std::to_string(rank) + " on " + HostName() + " has been ";
  if (phase == Phase::kStart && followed.ranks == 0) {
    what +=
        "waiting for the " + std::to_string(World::LaunchedRanks()) + " ranks of the job to start for " +
        Whole(seconds) +
        " s (watchdog.start_seconds); a rank did not start, runs another program, or cannot read its recipe";
  } else {
    what += (waits ? "waiting for other ranks" : "at one thing") + std::string(" for ") + Whole(seconds) +
            " s (" + PhaseName(phase);
    if (pulse_->step.load() > 0) what += ", step " + std::to_string(pulse_->step.load());
    what += ")";
    if (waits) what += RanksBehind(followed.folder, *pulse_, followed.ranks);
    what += "; start again to go on from the newest checkpoint";
    if (!followed.folder.empty()) what += "; stacks are in " + followed.folder.string();
  }
  const std::string line =
      "plural: error: " + what + " [exit 76, rank " + std::to_string(rank) + ", phase watchdog]\n";
  std::fwrite(line.data(), 1, line.size(), stderr);  // one write: the stream has no buffer
  // Files are next, and may be what hangs.
  std::thread([] {
    std::this_thread::sleep_for(kReporting);
    _exit(static_cast<int>(ExitCode::kPeerLost));
  }).detach();
  if (!followed.folder.empty()) {
    std::ofstream(HangMark(followed.folder)) << line;
    DumpStacks(followed, "has passed its deadline");
  }
  EndJob(followed);
}

void Watchdog::EndJob(const Followed& followed) const {
  constexpr int kCode = static_cast<int>(ExitCode::kPeerLost);
  if (followed.ranks > 1) World::Abort(kCode, followed.ranks);
  _exit(kCode);
}

}  // namespace plural::dist
