// Exit codes, and the error that carries one to main.
//
// Owns: the meaning of every exit code (docs/running.md). Does not own: reporting (main.cc).
// Thread rule: values.
#pragma once

#include <stdexcept>
#include <string>

namespace plural {

enum class ExitCode : int {
  kDone = 0,
  kUsage = 64,            // bad command line
  kBadData = 65,          // corpus, weights or checkpoint content unusable
  kMissingInput = 66,     // file or folder missing or unreadable
  kWrongResources = 69,   // GPU count, MPI world, ranks that see different recipes
  kInternal = 70,         // uncaught exception, failed invariant
  kCannotCreate = 73,     // run folder locked or not creatable
  kCheckpointWrite = 74,  // checkpoint could not be written
  kStopped = 75,          // stopped on request, state saved: requeue
  kPeerLost = 76,         // hang or lost peer
  kDiverged = 77,         // non-finite numbers
  kBadRecipe = 78,
  kReplicasDiffer = 79,
};

// One line: what was found, what is allowed, which file and key, what to do.
class ExitError : public std::runtime_error {
 public:
  ExitError(ExitCode code, const std::string& what) : std::runtime_error(what), code_(code) {}
  ExitCode Code() const { return code_; }

 private:
  ExitCode code_;
};

}  // namespace plural
