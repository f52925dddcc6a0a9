// Sums: named figures that add up over passes, groups, steps and ranks.
//
// Owns: the names and values of one vector, which travels whole from a pass to a line of metrics. Does not
// own: what is summed (method.h) or sent (dist/collectives.h). Thread rule: values.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace plural::trainer {

class Sums {
 public:
  Sums() = default;
  // All 0. The names are distinct.
  explicit Sums(std::vector<std::string> names);

  // Errors: std::logic_error for an unknown name.
  double& operator[](std::string_view name);
  double operator[](std::string_view name) const;
  bool Has(std::string_view name) const;

  // Adds every value of `other`, all of whose names this has, times `factor`.
  void Add(const Sums& other, double factor = 1.0);
  void Clear();

  const std::vector<std::string>& Names() const { return names_; }
  std::span<double> Values() { return values_; }
  std::span<const double> Values() const { return values_; }

 private:
  std::vector<std::string> names_;
  std::vector<double> values_;
};

}  // namespace plural::trainer
