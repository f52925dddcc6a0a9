// Assignment of rows to different columns with the largest total affinity.
//
// Owns: the exact solution, also when only some of the rows are to be used. Does not own: what rows
// and columns are (possibilities.h: responses and numbers). Thread rule: a pure function.
#pragma once

#include <span>
#include <vector>

namespace plural::data {

// Gives each of `count` of the `rows` rows a column, no column twice, so that the sum of their
// affinities is the largest possible. With count == rows this is the assignment problem; with count
// < rows the best `count` rows are chosen as well (k-cardinality assignment). Result[row] is a
// column, or -1 for a row that is not used.
//
// `affinity` is row-major [rows, columns] with values in [-1, 1]; they are compared as multiples of
// 2^-40 and summed as integers, so that no rounding decides and every platform finds the same
// result. Among several best results the choice is a function of the matrix alone.
// Preconditions: affinity.size() == rows * columns, 0 <= count <= min(rows, columns).
// Time: count * (rows + columns) * rows * columns at worst, about count * rows * columns in practice.
std::vector<int> AssignByAffinity(std::span<const float> affinity, int rows, int columns, int count);

}  // namespace plural::data
