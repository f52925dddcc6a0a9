// Agreement: what all ranks check together before they work together.
//
// Owns: turning a fault of several ranks into one error line, finding ranks that were started
// differently. Does not own: what is compared. Thread rule: one thread; all functions are
// COLLECTIVE unless they say otherwise.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "dist/collectives.h"
#include "dist/world.h"
#include "trainer/base/error.h"

namespace plural::dist {

// Runs `work`, which must not communicate, on every rank. When it throws on some ranks, the lowest
// of them rethrows, and the others wait for the end of the job, so that a fault of all ranks is
// reported once.
void OnEveryRank(const World& world, Collectives& collectives, const std::function<void()>& work);

// The same for work that returns a value: every rank gets the value of its own call.
template <typename Work>
auto MakeOnEveryRank(const World& world, Collectives& collectives, const Work& work) {
  std::optional<decltype(work())> made;
  OnEveryRank(world, collectives, [&] { made.emplace(work()); });
  return std::move(*made);
}

// Reports a fault that all ranks found: rank `reporter` throws, the others wait for the job's end.
[[noreturn]] void FailTogether(const World& world, Collectives& collectives, const ExitError& error,
                               int reporter = 0);

// Compares one named fact over ranks, such as the hash of the recipe. Ranks with an empty value are
// left out.
// Errors: ExitError(kWrongResources) naming the ranks that differ from most, and both values.
void RequireEqual(const std::string& fact, const std::string& value, const World& world,
                  Collectives& collectives);

// The ranks whose value is not the most frequent one; of equally frequent values, that of the
// lowest rank counts. Empty values are left out. Not collective.
std::vector<int> OddRanks(const std::vector<std::string>& values);
std::string JoinRanks(const std::vector<int>& ranks);  // "1, 3". Not collective.

}  // namespace plural::dist
