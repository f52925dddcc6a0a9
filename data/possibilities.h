// Possibility numbers: which number each response of a group is trained with.
//
// Owns: the draw, and the assignment by what numbers mean. Does not own: the optimal assignment itself
// (assignment.h). Thread rule: pure functions.
#pragma once

#include <cstdint>
#include <vector>

#include "data/labelling.h"

namespace plural::data {

// `count` responses of the group and a different possibility number for each, in order of the responses: a
// pure function of (seed, epoch, group). An aligned assignment is the same in every epoch; numbers that suit
// equally well are tried in an order drawn by (seed, group), so that none of them is preferred over the
// corpus. Errors: DataError when more numbers are asked for than exist, or when an aligned assignment is
// asked for and the group has no affinities to exactly as many numbers.
std::vector<NumberedResponse> AssignPossibilities(const Group& group, const LabelSettings& settings,
                                                  std::int64_t epoch, int count);

}  // namespace plural::data
