// Agreement: what all ranks check together before they work together.
//
// Owns: how a fault that several ranks see becomes one error line, how ranks find that they were started
// differently. Does not own: what is compared. Thread rule: one thread; all functions are COLLECTIVE
// unless they say otherwise.
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

// Runs `work`, which must not communicate, on every rank. When it throws on some ranks, the first of them
// rethrows and the others wait for the end of the job that its report brings: a fault that all ranks see
// is told once.
void OnEveryRank(const World& world, Collectives& collectives, const std::function<void()>& work);

// The same for work that makes something: every rank gets what its own call returned.
template <typename Work>
auto MakeOnEveryRank(const World& world, Collectives& collectives, const Work& work) {
  std::optional<decltype(work())> made;
  OnEveryRank(world, collectives, [&] { made.emplace(work()); });
  return std::move(*made);
}

// All ranks have found the same fault: rank `reporter` throws, the others wait for the end of the job.
[[noreturn]] void FailTogether(const World& world, Collectives& collectives, const ExitError& error,
                               int reporter = 0);

// Compares one named fact over ranks, such as the hash of the recipe. A rank with an empty value says
// nothing.
// Errors: ExitError(kWrongResources) naming the ranks that differ from most, and both values.
void RequireEqual(const std::string& fact, const std::string& value, const World& world,
                  Collectives& collectives);

// The ranks whose value is not the most frequent one (of equally frequent ones, that of the lowest rank);
// empty values are left out.
// Not collective.
std::vector<int> OddRanks(const std::vector<std::string>& values);
std::string JoinRanks(const std::vector<int>& ranks);  // "1, 3". Not collective.

}  // namespace plural::dist
