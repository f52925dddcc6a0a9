#include "data/possibilities.h"

#include <algorithm>
#include <string>

#include "data/assignment.h"
#include "data/random.h"

namespace plural::data {
namespace {

void RequireAffinities(const Group& group, int candidates, int possibilities) {
  for (int i = 0; i < candidates; ++i) {
    const std::size_t found = group.responses[static_cast<std::size_t>(i)].affinity.size();
    if (found == static_cast<std::size_t>(possibilities)) continue;
    Refuse(group, "response " + std::to_string(i) + " has affinities to " + std::to_string(found) +
                      " possibility numbers, group.possibilities is " + std::to_string(possibilities) +
                      "; group.assignment aligned needs a corpus made with `plural prepare --align`, and as "
                      "many numbers");
  }
}

std::vector<NumberedResponse> AlignedPossibilities(const Group& group, const LabelSettings& settings,
                                                   int count) {
  const int numbers = settings.possibilities;
  const int candidates =
      settings.selection == Selection::kAligned ? static_cast<int>(group.responses.size()) : count;
  RequireAffinities(group, candidates, numbers);
  const CounterRandom random{MixKey(settings.seed, Purpose::kPossibilities, HashName(group.id))};
  const std::vector<int> order = SampleWithoutReplacement(random, numbers, numbers);
  std::vector<float> affinity;
  affinity.reserve(static_cast<std::size_t>(candidates) * order.size());
  for (int i = 0; i < candidates; ++i) {
    const std::vector<float>& own = group.responses[static_cast<std::size_t>(i)].affinity;
    for (const int number : order) affinity.push_back(own[static_cast<std::size_t>(number - 1)]);
  }
  const std::vector<int> columns = AssignByAffinity(affinity, candidates, numbers, count);
  std::vector<NumberedResponse> used;
  for (int i = 0; i < candidates; ++i) {
    const int column = columns[static_cast<std::size_t>(i)];
    if (column >= 0) used.push_back({.response = i, .possibility = order[static_cast<std::size_t>(column)]});
  }
  return used;
}

}  // namespace

std::vector<NumberedResponse> AssignPossibilities(const Group& group, const LabelSettings& settings,
                                                  std::int64_t epoch, int count) {
  if (count > settings.possibilities) {
    Refuse(group, std::to_string(count) +
                      " responses need as many different possibility numbers, there are " +
                      std::to_string(settings.possibilities) +
                      "; raise group.possibilities or lower group.responses");
  }
  if (settings.possibilities > group.Possibilities()) {
    Refuse(group, "is prepared for " + std::to_string(std::max(group.Possibilities(), 0)) +
                      " possibility numbers, group.possibilities is " +
                      std::to_string(settings.possibilities) +
                      "; lower it or prepare the corpus with as many");
  }
  if (settings.assignment == Assignment::kAligned) return AlignedPossibilities(group, settings, count);
  std::vector<NumberedResponse> used = WithoutNumbers(count);
  if (settings.assignment == Assignment::kSequential) {
    for (NumberedResponse& numbered : used) numbered.possibility = numbered.response + 1;
    return used;
  }
  const std::int64_t draw = settings.assignment == Assignment::kFixed ? 0 : epoch;
  const CounterRandom random{
      MixKey(settings.seed, Purpose::kPossibilities, HashName(group.id), static_cast<std::uint64_t>(draw))};
  const std::vector<int> drawn = SampleWithoutReplacement(random, settings.possibilities, count);
  for (std::size_t i = 0; i < used.size(); ++i) used[i].possibility = drawn[i];
  return used;
}

}  // namespace plural::data
