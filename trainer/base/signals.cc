#include "trainer/base/signals.h"

#include <atomic>
#include <csignal>
#include <initializer_list>

namespace plural {
namespace {

// State outside objects: a signal handler is given nothing else to write to.
std::atomic<bool> signal_seen = false;
std::atomic<bool> status_asked = false;
static_assert(std::atomic<bool>::is_always_lock_free);  // what a handler may store to

extern "C" void RequestStop(int) { signal_seen.store(true, std::memory_order_relaxed); }

extern "C" void RequestStatus(int) { status_asked.store(true, std::memory_order_relaxed); }

// launch/plural holds them back while the program is loaded: what has come by now is heard here.
void Unblock(std::initializer_list<int> signals) {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : signals) sigaddset(&set, signal);
  pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
}

}  // namespace

void WriteErrorsInsteadOfSignals() {
  for (const int signal : {SIGPIPE, SIGXFSZ}) std::signal(signal, SIG_IGN);
}

void StopSignal::Hear() {
  struct sigaction action {};
  action.sa_handler = RequestStop;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  for (const int signal : {SIGUSR1, SIGTERM, SIGINT, SIGHUP}) {
    struct sigaction previous {};
    sigaction(signal, nullptr, &previous);
    if (signal == SIGHUP && previous.sa_handler == SIG_IGN) continue;
    sigaction(signal, &action, nullptr);
  }
  Unblock({SIGUSR1, SIGTERM, SIGINT, SIGHUP});
}

bool StopSignal::Requested() const { return signal_seen.load(std::memory_order_relaxed); }

void StatusSignal::Hear() {
  struct sigaction action {};
  action.sa_handler = RequestStatus;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  sigaction(SIGUSR2, &action, nullptr);
  Unblock({SIGUSR2});
}

bool StatusSignal::Take() { return status_asked.exchange(false, std::memory_order_relaxed); }

}  // namespace plural
