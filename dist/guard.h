// The guard: a process beside a rank that ends the rank's job when the rank itself cannot.
//
// Owns: the forked process. Does not own: deadlines of a rank that runs (watchdog.h). Thread rule: made by
// the main thread before there are others.
//
// A rank that has been stopped, or whose threads do not run any more, reports nothing itself, and its peers
// and its launcher would wait for ever. The guard has a session of its own, so that what stops or ends the
// rank's process group does not reach it, and ends with the rank.
#pragma once

#include <sys/types.h>

#include "dist/pulse.h"

namespace plural::dist {

class Guard {
 public:
  // Where the process cannot be made, there is none.
  explicit Guard(Pulse& pulse);
  ~Guard();
  Guard(const Guard&) = delete;
  Guard& operator=(const Guard&) = delete;

 private:
  pid_t process_ = -1;
};

}  // namespace plural::dist
