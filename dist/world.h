// The world: this process among its peers.
//
// Owns: MPI from construction to destruction. Does not own: communication (collectives.h), devices'
// memory. Made once, in main, and passed down. Thread rule: made and destroyed by the main thread;
// Abort may be called from any thread.
#pragma once

#include <memory>
#include <string>

#include "dist/pulse.h"

namespace plural::dist {

class World {
 public:
  // Initialises MPI with MPI_THREAD_SERIALIZED or better. COLLECTIVE.
  // Errors: ResourceError when the launcher says that there are peers but MPI made a world of one.
  // `pulse`: where this rank's collectives say that they wait; null: nobody watches.
  World(int* argc, char*** argv, std::shared_ptr<Pulse> pulse = nullptr);
  // Finalises MPI unless an exception is in flight: a failing rank must never reach MPI_Finalize,
  // where its peers would wait for ever.
  ~World();
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  int Rank() const { return rank_; }
  int Size() const { return size_; }
  int LocalRank() const { return local_rank_; }  // among the ranks of this machine
  int LocalSize() const { return local_size_; }
  // The number of this machine's ranks, this one included, that may run on a core on which this one
  // may run; 1 where the launcher binds each rank to its own cores.
  int RanksOnTheseCores() const { return ranks_on_these_cores_; }
  const std::string& Host() const { return host_; }
  Pulse& GetPulse() const { return *pulse_; }
  int ThreadLevel() const { return thread_level_; }  // MPI_THREAD_*
  static std::string ThreadLevelName(int level);
  static std::string LibraryVersion();

  // What the launcher says without MPI: how many ranks it has started, 1 without one, and which this is.
  static int LaunchedRanks();
  static int LaunchedRank();
  static bool HasLauncher();

  // Ends every rank of the job with exit code `code` (0..255) within seconds.
  [[noreturn]] void Abort(int code) const { Abort(code, size_); }
  // The same of a job with `ranks`, for those who may outlive the object.
  [[noreturn]] static void Abort(int code, int ranks);

 private:
  int rank_ = 0, size_ = 1, local_rank_ = 0, local_size_ = 1, thread_level_ = 0;
  int ranks_on_these_cores_ = 1;
  int uncaught_at_start_ = 0;
  std::string host_;
  std::shared_ptr<Pulse> pulse_;
};

}  // namespace plural::dist
