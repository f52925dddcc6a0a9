#include "trainer/base/signals.h"

namespace plural {
namespace {

constexpr int kSignals[] = {SIGUSR1, SIGTERM, SIGINT};

// The only state outside objects: a signal handler is given nothing else to write to.
volatile std::sig_atomic_t signal_seen = 0;

extern "C" void RequestStop(int) { signal_seen = 1; }

}  // namespace

StopSignal::StopSignal() {
  signal_seen = 0;
  for (int i = 0; i < 3; ++i) {
    struct sigaction action {};
    action.sa_handler = RequestStop;
    sigemptyset(&action.sa_mask);
    action.sa_flags = SA_RESTART;
    if (kSignals[i] == SIGINT) action.sa_flags |= static_cast<int>(SA_RESETHAND);
    sigaction(kSignals[i], &action, &previous_[i]);
  }
}

StopSignal::~StopSignal() {
  for (int i = 0; i < 3; ++i) sigaction(kSignals[i], &previous_[i], nullptr);
}

bool StopSignal::Requested() const { return signal_seen != 0; }

}  // namespace plural
