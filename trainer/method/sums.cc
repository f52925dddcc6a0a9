#include "trainer/method/sums.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

namespace plural::trainer {
namespace {

std::size_t PlaceOf(const std::vector<std::string>& names, std::string_view name) {
  const auto found = std::ranges::find(names, name);
  if (found == names.end()) throw std::logic_error("there is no sum named " + std::string(name));
  return static_cast<std::size_t>(found - names.begin());
}

}  // namespace

Sums::Sums(std::vector<std::string> names) : names_(std::move(names)), values_(names_.size(), 0.0) {}

double& Sums::operator[](std::string_view name) { return values_[PlaceOf(names_, name)]; }

double Sums::operator[](std::string_view name) const { return values_[PlaceOf(names_, name)]; }

bool Sums::Has(std::string_view name) const { return std::ranges::find(names_, name) != names_.end(); }

void Sums::Add(const Sums& other, double factor) {
  for (std::size_t i = 0; i < other.names_.size(); ++i) (*this)[other.names_[i]] += other.values_[i] * factor;
}

void Sums::Clear() { std::ranges::fill(values_, 0.0); }

}  // namespace plural::trainer
