#include "dist/agreement.h"

#include <algorithm>
#include <exception>
#include <map>

namespace plural::dist {
namespace {

// Blocks until the rank that reports the fault ends the job: it never enters this barrier.
[[noreturn]] void WaitForTheEnd(Collectives& collectives) {
  collectives.Barrier();
  throw ExitError(ExitCode::kInternal, "another rank reported a fault but did not end the job");
}

}  // namespace

void OnEveryRank(const World& world, Collectives& collectives, const std::function<void()>& work) {
  std::exception_ptr fault;
  try {
    work();
  } catch (...) {  // rethrown below; kept because the other ranks must hear of it first
    fault = std::current_exception();
  }
  double lowest[1] = {fault ? -static_cast<double>(world.Rank()) : -static_cast<double>(world.Size())};
  collectives.AllReduceMax(lowest);
  const int reporter = static_cast<int>(-lowest[0]);
  if (reporter == world.Size()) return;
  if (reporter == world.Rank()) std::rethrow_exception(fault);
  WaitForTheEnd(collectives);
}

void FailTogether(const World& world, Collectives& collectives, const ExitError& error, int reporter) {
  if (world.Rank() == reporter) throw error;
  WaitForTheEnd(collectives);
}

void RequireEqual(const std::string& fact, const std::string& value, const World& world,
                  Collectives& collectives) {
  const std::vector<std::string> values = collectives.AllGather(value);
  const std::vector<int> odd = OddRanks(values);
  if (odd.empty()) return;
  const auto says_other = [&](const std::string& text) {
    return !text.empty() && text != values[static_cast<std::size_t>(odd.front())];
  };
  FailTogether(world, collectives,
               ExitError(ExitCode::kWrongResources,
                         "ranks see different things: " + fact + " is " +
                             values[static_cast<std::size_t>(odd.front())] + " on rank " + JoinRanks(odd) +
                             " and " + *std::find_if(values.begin(), values.end(), says_other) +
                             " on others; start every rank with the same program, recipe and files"));
}

std::vector<int> OddRanks(const std::vector<std::string>& values) {
  std::map<std::string, int> count;
  for (const auto& value : values) count[value] += value.empty() ? 0 : 1;
  const std::string* most = &values.front();
  for (const auto& value : values) {
    if (count[value] > count[*most]) most = &value;
  }
  std::vector<int> odd;
  for (std::size_t rank = 0; rank < values.size(); ++rank) {
    if (!values[rank].empty() && values[rank] != *most) odd.push_back(static_cast<int>(rank));
  }
  return odd;
}

std::string JoinRanks(const std::vector<int>& ranks) {
  std::string text;
  for (const int rank : ranks) text += (text.empty() ? "" : ", ") + std::to_string(rank);
  return text;
}

}  // namespace plural::dist
