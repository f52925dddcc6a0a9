// Signals: how a command is asked to stop.
//
// Owns: what SIGUSR1 (a batch system's warning), SIGTERM, SIGINT, SIGHUP, SIGUSR2, SIGPIPE and SIGXFSZ do to
// the process. Does not own: what stopping means (the commands). Thread rule: Hear and
// WriteErrorsInsteadOfSignals are called by the main thread before there are others; Requested may be called
// by any thread; the handler only stores to a flag, in whichever thread the signal comes.
#pragma once

namespace plural {

// A failing write is an error that its writer reports: the signals that would end the process (SIGPIPE,
// SIGXFSZ) are ignored from here to its end.
void WriteErrorsInsteadOfSignals();

class StopSignal {
 public:
  // From here to the end of the process SIGUSR1, SIGTERM, SIGINT and SIGHUP only ask for a stop, however
  // often they come, and so do those that were blocked until now and have come. A SIGHUP that is ignored
  // (nohup) stays so. Nothing is undone by a destructor: a request that comes while the process ends must not
  // kill it.
  static void Hear();

  // This process has been asked. Ranks must agree on it before they act.
  bool Requested() const;
};

// SIGUSR2 asks where the process is; it goes on.
class StatusSignal {
 public:
  static void Hear();
  static bool Take();  // asked since the last call
};

}  // namespace plural
