// Faults on purpose: what a test makes one rank do in one step.
//
// Owns: PLURAL_FAULT=KIND@RANK:STEP, and what the kinds do. Does not own: what ends the job then. Thread
// rule: main thread. Programs that are built without tests have none of it.
//
// Kinds: kill, segv, abort, stop (signals to itself), exit (code 3), throw, spin (for ever), sleep (for
// ever), nan (into the parameters), bitflip (the lowest bit of one parameter, on this rank alone), oom (a
// GPU's memory runs out behind the step's first backward); enospc and torn strike the checkpoint of that step
// (base/write_fault.h), and behind a torn one the process is killed. STEP counts from 1.
#pragma once

#include <cstdint>
#include <string>

#include "dist/flat_parameters.h"

namespace plural::trainer {

class Fault {
 public:
  // What the environment asks of this rank. Errors: ExitError(kUsage).
  explicit Fault(int rank);
  // Called before step `step`.
  void Before(std::int64_t step, dist::FlatParameters& parameters) const;
  // The step in which memory runs out; 0: none.
  std::int64_t OutOfMemoryStep() const { return kind_ == "oom" ? step_ : 0; }

 private:
  std::string kind_;  // "": nothing
  std::int64_t step_ = 0;
};

}  // namespace plural::trainer
