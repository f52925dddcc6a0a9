#include "trainer/model/config_keys.h"

#include <cmath>
#include <utility>

#include "trainer/base/error.h"

namespace plural::trainer {
using nlohmann::json;

ConfigKeys::ConfigKeys(const json& object, std::string where) : object_(object), where_(std::move(where)) {
  if (!object.is_object()) throw ExitError(ExitCode::kBadData, where_ + ": a JSON object is needed");
}

void ConfigKeys::Fail(const std::string& key, const std::string& what) const {
  throw ExitError(ExitCode::kBadData, where_ + ": " + key + ": " + what);
}

const json& ConfigKeys::At(const std::string& key) const {
  static const json null;
  const auto found = object_.find(key);
  return found == object_.end() ? null : *found;
}

std::int64_t ConfigKeys::Size(const std::string& key, std::int64_t largest,
                              std::optional<std::int64_t> fallback) const {
  const json& value = At(key);
  if (value.is_null() && fallback) return *fallback;
  if (value.is_null()) Fail(key, "missing; a whole number is needed");
  return Whole(key, value, 1, largest);
}

std::int64_t ConfigKeys::Whole(const std::string& key, const json& value, std::int64_t smallest,
                               std::int64_t largest) const {
  // Signed when a program made the value, unsigned when the parser did.
  const bool beyond = value.is_number_unsigned() && value.get<std::uint64_t>() > std::uint64_t{1} << 62;
  const bool fits = value.is_number_integer() && !beyond && value.get<std::int64_t>() >= smallest &&
                    value.get<std::int64_t>() <= largest;
  if (!fits) {
    Fail(key, "found " + value.dump() + ", a whole number from " + std::to_string(smallest) + " to " +
                  std::to_string(largest) + " is allowed");
  }
  return value.get<std::int64_t>();
}

double ConfigKeys::Positive(const std::string& key, std::optional<double> fallback) const {
  const json& value = At(key);
  if (value.is_null() && fallback) return *fallback;
  if (value.is_null()) Fail(key, "missing; a positive number is needed");
  if (!value.is_number() || !std::isfinite(value.get<double>()) || value.get<double>() <= 0.0) {
    Fail(key, "found " + value.dump() + ", a positive number is allowed");
  }
  return value.get<double>();
}

double ConfigKeys::PositiveOrNull(const std::string& key, double fallback) const {
  if (!Has(key)) return fallback;
  return At(key).is_null() ? 0.0 : Positive(key);
}

bool ConfigKeys::Flag(const std::string& key, bool fallback) const {
  const json& value = At(key);
  if (value.is_null()) return fallback;
  if (!value.is_boolean()) Fail(key, "found " + value.dump() + ", true or false is allowed");
  return value.get<bool>();
}

std::string ConfigKeys::Text(const std::string& key, const std::string& fallback) const {
  const json& value = At(key);
  if (value.is_null()) return fallback;
  if (!value.is_string()) Fail(key, "found " + value.dump() + ", a string is needed");
  return value.get<std::string>();
}

}  // namespace plural::trainer
