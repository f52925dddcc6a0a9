// Rules: contradictions between keys that are each allowed by themselves.
//
// Owns: the list of rules. Does not own: types and ranges (schema.h), what only the corpus or the model can
// tell (data::Label, Decoder). Thread rule: pure functions.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "trainer/recipe/recipe.h"

namespace plural::trainer {

struct Violation {
  std::string key;   // the key to blame; its origin says where
  std::string what;  // what was found, what is allowed, what to do
};

// All violations, in the order of the rules. `readable` says whether a key's value could be read: rules
// about a key that could not are left out, since its default stands in its place.
std::vector<Violation> CheckRules(const Recipe& recipe,
                                  const std::function<bool(const std::string& key)>& readable);

}  // namespace plural::trainer
