#include "trainer/base/signals.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <functional>

namespace plural {
namespace {

// What `work` returns, called in a process of its own; -1 where a signal ended that process.
int InAnotherProcess(const std::function<int()>& work) {
  const pid_t child = fork();
  if (child == 0) _exit(work());
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST(StopSignal, AnyNumberOfRequestsIsOneRequest) {
  for (const int signal : {SIGUSR1, SIGTERM, SIGINT, SIGHUP}) {
    EXPECT_EQ(InAnotherProcess([signal] {
                StopSignal::Hear();
                {
                  const StopSignal stop;
                  if (stop.Requested()) return 1;
                  for (int i = 0; i < 3; ++i) raise(signal);
                  if (!stop.Requested()) return 2;
                }
                raise(signal);  // while the process ends
                return StopSignal().Requested() ? 0 : 3;
              }),
              0)
        << signal;
  }
}

TEST(StopSignal, WhatWasHeldBackIsHeard) {
  EXPECT_EQ(InAnotherProcess([] {
              sigset_t held;
              sigemptyset(&held);
              for (const int signal : {SIGUSR1, SIGUSR2}) sigaddset(&held, signal);
              sigprocmask(SIG_BLOCK, &held, nullptr);
              for (const int signal : {SIGUSR1, SIGUSR2}) raise(signal);
              StopSignal::Hear();
              StatusSignal::Hear();
              return StopSignal().Requested() && StatusSignal::Take() ? 0 : 1;
            }),
            0);
}

TEST(StopSignal, WhatNohupIgnoresStaysIgnored) {
  EXPECT_EQ(InAnotherProcess([] {
              std::signal(SIGHUP, SIG_IGN);
              StopSignal::Hear();
              raise(SIGHUP);
              return StopSignal().Requested() ? 1 : 0;
            }),
            0);
}

TEST(Signals, AFailingWriteIsAnErrorOfTheWrite) {
  EXPECT_EQ(InAnotherProcess([] {
              WriteErrorsInsteadOfSignals();
              int ends[2];
              if (pipe(ends) != 0) return 1;
              close(ends[0]);
              if (write(ends[1], "x", 1) != -1 || errno != EPIPE) return 2;
              raise(SIGXFSZ);
              return 0;
            }),
            0);
}

}  // namespace
}  // namespace plural
