// Typed access to the keys of a config.json.
//
// Owns: types and ranges of single values; every error names file and key. Does not own: what keys mean
// (config_json.cc). Thread rule: a view of one JSON object, which must outlive it.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

namespace plural::trainer {

// Errors: ExitError(kBadData).
class ConfigKeys {
 public:
  ConfigKeys(const nlohmann::json& object, std::string where);

  [[noreturn]] void Fail(const std::string& key, const std::string& what) const;
  // The value, or null when the key is absent.
  const nlohmann::json& At(const std::string& key) const;
  bool Has(const std::string& key) const { return object_.contains(key); }
  // The object at `key`.
  ConfigKeys Object(const std::string& key) const { return {At(key), where_ + ": " + key}; }

  // An absent or null key gives the fallback; without a fallback the key is required.
  std::int64_t Size(const std::string& key, std::int64_t largest,
                    std::optional<std::int64_t> fallback = std::nullopt) const;
  std::int64_t Whole(const std::string& key, const nlohmann::json& value, std::int64_t smallest,
                     std::int64_t largest) const;
  double Positive(const std::string& key, std::optional<double> fallback = std::nullopt) const;
  // A positive number, or null for 0; absent: the fallback.
  double PositiveOrNull(const std::string& key, double fallback) const;
  bool Flag(const std::string& key, bool fallback) const;
  std::string Text(const std::string& key, const std::string& fallback) const;

 private:
  const nlohmann::json& object_;
  std::string where_;
};

}  // namespace plural::trainer
