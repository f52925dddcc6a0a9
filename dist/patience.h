// Waits for what other ranks must do, no longer than a deadline.
//
// Owns: how a wait looks and when it gives up, the names of those waited for. Does not own: what is waited
// for (cuda/nccl_collectives_cuda.cc), deadlines of whole phases (watchdog.h). Thread rule: any thread.
#pragma once

#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "dist/error.h"

namespace plural::dist {

struct Patience {
  double seconds = 0.0;  // 0: without end
  std::string peers;     // as PeersOf says
};

// The ranks but `rank`, by machine: "rank 1 on a, ranks 2-3 on b"; "no other rank" for a world of one.
std::string PeersOf(const std::vector<std::string>& host_of_rank, int rank);

// Returns when done() is true. A wait is short as a rule: the processor is given up at first, then slept on.
// Errors: PeerError after `patience`, naming `operation`, `where` it waits and the peers.
template <class Done>
void AwaitWithin(const Patience& patience, const std::string& operation, const std::string& where,
                 const Done& done) {
  using Clock = std::chrono::steady_clock;
  constexpr std::chrono::microseconds kYield{50}, kPoll{20};
  const auto start = Clock::now();
  while (!done()) {
    const auto waited = Clock::now() - start;
    if (patience.seconds > 0.0 && std::chrono::duration<double>(waited).count() > patience.seconds) {
      throw PeerError(operation + " did not end within " +
                      std::to_string(static_cast<long long>(patience.seconds)) + " s on " + where +
                      ": it waits for " + patience.peers +
                      "; look at what they do (SIGUSR2), or raise watchdog.nccl_seconds");
    }
    if (waited < kYield) {
      std::this_thread::yield();
    } else {
      std::this_thread::sleep_for(kPoll);
    }
  }
}

}  // namespace plural::dist
