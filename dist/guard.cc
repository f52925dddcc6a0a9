#include "dist/guard.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstring>
#include <ctime>

namespace plural::dist {
namespace {

// Seconds without a beat. A stopped process does not come back by itself; one that is not stopped may be
// short of memory or of a processor for some time.
constexpr int kStoppedSeconds = 3;
constexpr int kSilentSeconds = 120;
constexpr int kEndingSeconds = 8;  // which the rank has for ending its job
constexpr int kExitCode = 76;

// From here to the end of the file: the guard's process, a copy of one that may have held any lock. It calls
// what a signal handler may call, and snprintf of numbers and plain texts.

// 'T': stopped; 't': held by a debugger; '?': unknown.
char StateOf(pid_t process) {
  char path[64], text[512];
  std::snprintf(path, sizeof(path), "/proc/%d/stat", static_cast<int>(process));
  const int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return '?';
  const ssize_t length = read(file, text, sizeof(text) - 1);
  close(file);
  if (length <= 0) return '?';
  text[length] = '\0';
  const char* behind_name = std::strrchr(text, ')');
  return behind_name != nullptr && behind_name[1] == ' ' ? behind_name[2] : '?';
}

void SleepASecond() {
  const timespec second{1, 0};
  nanosleep(&second, nullptr);
}

void Report(const Pulse& pulse, bool stopped, int seconds) {
  char host[256] = "?", text[1024];
  gethostname(host, sizeof(host) - 1);
  const int length = std::snprintf(
      text, sizeof(text),
      "plural: error: rank %d on %s %s for %d s (%s%s, step %lld); start again to go on from the newest "
      "checkpoint [exit 76, rank %d, phase watchdog]\n",
      pulse.rank.load(), host, stopped ? "has been stopped by a signal" : "does not run any more", seconds,
      PhaseName(pulse.phase.load()), pulse.waits.load() ? ", waiting for other ranks" : "",
      static_cast<long long>(pulse.step.load()), pulse.rank.load());
  if (length > 0) {
    const ssize_t written = write(STDERR_FILENO, text, static_cast<std::size_t>(length));
    static_cast<void>(written);  // nobody is left to tell
  }
}

[[noreturn]] void End(Pulse& pulse, pid_t rank) {
  pulse.condemned.store(true);
  kill(rank, SIGCONT);
  for (int second = 0; second < kEndingSeconds && getppid() == rank; ++second) SleepASecond();
  if (getppid() == rank) kill(rank, SIGKILL);
  _exit(kExitCode);
}

[[noreturn]] void Watch(Pulse& pulse, pid_t rank) {
  std::int64_t beats = -1;
  int silent = 0, stopped = 0;
  // Seconds are counted in turns of this loop, so that a pause of the whole job does not count.
  for (;;) {
    SleepASecond();
    if (getppid() != rank) _exit(0);
    const std::int64_t now = pulse.beats.load();
    const char state = StateOf(rank);
    if (now != beats || !pulse.guarded.load() || state == 't') {
      beats = now;
      silent = stopped = 0;
      continue;
    }
    ++silent;
    stopped = state == 'T' ? stopped + 1 : 0;
    if (stopped >= kStoppedSeconds || silent >= kSilentSeconds) {
      Report(pulse, stopped >= kStoppedSeconds, stopped >= kStoppedSeconds ? stopped : silent);
      End(pulse, rank);
    }
  }
}

}  // namespace

Guard::Guard(Pulse& pulse) {
  const pid_t rank = getpid();
  process_ = fork();
  if (process_ != 0) return;
  setsid();
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != rank) _exit(0);  // it has ended meanwhile
  prctl(PR_SET_NAME, "plural-guard");
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2, SIGPIPE}) std::signal(signal, SIG_IGN);
  // Whoever reads what the rank writes waits for the end of all that hold the other end: the guard keeps
  // standard error alone, and never longer than the rank.
  const int nothing = open("/dev/null", O_RDWR);
  dup2(nothing, STDIN_FILENO);
  dup2(nothing, STDOUT_FILENO);
  syscall(SYS_close_range, 3U, ~0U, 0U);
  Watch(pulse, rank);
}

Guard::~Guard() {
  if (process_ <= 0) return;
  kill(process_, SIGKILL);
  waitpid(process_, nullptr, 0);
}

}  // namespace plural::dist
