// Signals: how a command is asked to stop.
//
// Owns: the handlers of SIGUSR1 (a batch system's warning), SIGTERM and SIGINT while it lives. Does not
// own: what stopping means (the commands). Thread rule: made and destroyed by the main thread, one at a time;
// a handler only stores to a flag.
#pragma once

#include <csignal>

namespace plural {

class StopSignal {
 public:
  // From here the three signals only ask for a stop. A second SIGINT ends the process at once.
  StopSignal();
  ~StopSignal();
  StopSignal(const StopSignal&) = delete;
  StopSignal& operator=(const StopSignal&) = delete;

  // This process has been asked. Ranks must agree on it before they act.
  bool Requested() const;

 private:
  struct sigaction previous_[3] = {};
};

}  // namespace plural
