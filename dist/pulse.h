// The pulse: what this rank does now, for those who watch it from another thread or process.
//
// Owns: phase, step, whether the main thread waits for other ranks, in memory that a forked process shares.
// Does not own: what is too long (watchdog.h). Thread rule: Enter and Waiting by the main thread; all else by
// any thread and by the guard's process.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

namespace plural::dist {

// kWork: commands that have no phases of their own, which may take as long as they want.
enum class Phase : int { kStart, kWork, kLoad, kData, kCompute, kSum, kCheckpoint, kValidation, kEnd };
const char* PhaseName(Phase phase);  // "forward and backward"

struct Pulse {
  std::atomic<Phase> phase = Phase::kStart;
  std::atomic<std::int64_t> step = 0;  // the one that is worked on, from 1; 0: none
  std::atomic<bool> waits = false;     // for other ranks
  std::atomic<std::int64_t> changes =
      0;                      // of the three above: a rank whose count stands still does one thing
  std::atomic<int> rank = 0;  // as the launcher says, until MPI knows
  // Between the watchdog's thread and the guard.
  std::atomic<std::int64_t> beats = 0;  // of the thread
  std::atomic<bool> guarded = true;
  std::atomic<bool> condemned = false;  // by the guard: the thread ends the job as soon as it runs

  void Enter(Phase now, std::int64_t at_step = 0) {
    phase.store(now, std::memory_order_relaxed);
    step.store(at_step, std::memory_order_relaxed);
    changes.fetch_add(1, std::memory_order_release);
  }

  // While it lives, the main thread waits for other ranks.
  class Waiting {
   public:
    explicit Waiting(Pulse& pulse) : pulse_(pulse) { Set(true); }
    ~Waiting() { Set(false); }
    Waiting(const Waiting&) = delete;
    Waiting& operator=(const Waiting&) = delete;

   private:
    void Set(bool now) {
      pulse_.waits.store(now, std::memory_order_relaxed);
      pulse_.changes.fetch_add(1, std::memory_order_release);
    }
    Pulse& pulse_;
  };
};
static_assert(std::atomic<std::int64_t>::is_always_lock_free && std::atomic<Phase>::is_always_lock_free);

// A pulse in memory that a process forked later sees too. Errors: std::bad_alloc.
std::shared_ptr<Pulse> SharedPulse();

}  // namespace plural::dist
