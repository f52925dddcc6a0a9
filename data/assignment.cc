#include "data/assignment.h"

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>

namespace plural::data {
namespace {

constexpr std::int64_t kUnreached = std::numeric_limits<std::int64_t>::min();
constexpr int kNone = -1;

// Largest-gain augmenting paths, one per used row (successive shortest paths of minimum-cost flow).
// After n paths the matching is the best one of n edges, which is why stopping early also chooses
// the rows: a path may start at any row that is still free.
class Matching {
 public:
  Matching(std::span<const float> affinity, int rows, int columns)
      : rows_(rows), columns_(columns), column_of_(Size(rows), kNone), row_of_(Size(columns), kNone) {
    gain_.reserve(affinity.size());
    for (const float value : affinity) gain_.push_back(std::llround(std::ldexp(value, 40)));
  }

  // Adds one edge to the matching. Precondition: a free row and a free column exist.
  void Augment() {
    FindPaths();
    int best = kNone;
    for (int column = 0; column < columns_; ++column) {
      if (row_of_[Size(column)] != kNone) continue;
      if (best == kNone || column_gain_[Size(column)] > column_gain_[Size(best)]) best = column;
    }
    // Follows the path back: every row on it takes the column that comes after it.
    for (int column = best; column != kNone;) {
      const int row = came_from_[Size(column)];
      const int before = column_of_[Size(row)];
      column_of_[Size(row)] = column;
      row_of_[Size(column)] = row;
      column = before;
    }
  }

  const std::vector<int>& ColumnOf() const { return column_of_; }

 private:
  static std::size_t Size(int value) { return static_cast<std::size_t>(value); }
  std::int64_t Gain(int row, int column) const { return gain_[Size(row) * Size(columns_) + Size(column)]; }

  // The largest gain of an alternating path from any free row to each column (Bellman-Ford). It
  // terminates, since a best matching has no cycle of positive gain, and gains are exact.
  void FindPaths() {
    row_gain_.assign(Size(rows_), kUnreached);
    column_gain_.assign(Size(columns_), kUnreached);
    came_from_.assign(Size(columns_), kNone);
    std::vector<int> changed;
    for (int row = 0; row < rows_; ++row) {
      if (column_of_[Size(row)] != kNone) continue;
      row_gain_[Size(row)] = 0;
      changed.push_back(row);
    }
    while (!changed.empty()) {
      std::vector<char> improved(Size(columns_), 0);
      for (const int row : changed) {
        for (int column = 0; column < columns_; ++column) {
          if (column == column_of_[Size(row)]) continue;
          const std::int64_t gain = row_gain_[Size(row)] + Gain(row, column);
          if (gain <= column_gain_[Size(column)]) continue;
          column_gain_[Size(column)] = gain;
          came_from_[Size(column)] = row;
          improved[Size(column)] = 1;
        }
      }
      changed.clear();
      for (int column = 0; column < columns_; ++column) {
        const int row = row_of_[Size(column)];
        if (!improved[Size(column)] || row == kNone) continue;
        row_gain_[Size(row)] = column_gain_[Size(column)] - Gain(row, column);  // the row gives it up
        changed.push_back(row);
      }
    }
  }

  int rows_;
  int columns_;
  std::vector<std::int64_t> gain_;  // [rows, columns], in units of 2^-40
  std::vector<int> column_of_;      // of a row, kNone while it is free
  std::vector<int> row_of_;         // of a column
  // Results of the latest FindPaths.
  std::vector<std::int64_t> row_gain_;
  std::vector<std::int64_t> column_gain_;
  std::vector<int> came_from_;  // the row before a column
};

}  // namespace

std::vector<int> AssignByAffinity(std::span<const float> affinity, int rows, int columns, int count) {
  Matching matching(affinity, rows, columns);
  for (int edge = 0; edge < count; ++edge) matching.Augment();
  return matching.ColumnOf();
}

}  // namespace plural::data
