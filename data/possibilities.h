// Possibility numbers: the number with which each response of a group is trained.
//
// Owns: the draw, and the assignment by affinity. Does not own: the optimal assignment itself
// (assignment.h). Thread rule: pure functions.
#pragma once

#include <cstdint>
#include <vector>

#include "data/labelling.h"

namespace plural::data {

// Chooses `count` responses of the group and a different possibility number for each, in order of
// the responses: a pure function of (seed, epoch, group). An aligned assignment is the same in
// every epoch; ties between numbers are broken by an order drawn from (seed, group), so that no
// number is preferred over the corpus. Errors: DataError when more numbers are asked for than
// exist, or when an aligned assignment is asked for and the group does not have affinities to
// exactly that many numbers.
std::vector<NumberedResponse> AssignPossibilities(const Group& group, const LabelSettings& settings,
                                                  std::int64_t epoch, int count);

}  // namespace plural::data
