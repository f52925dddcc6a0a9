// What the possibility numbers of an aligned corpus came to mean, for people and as JSON.
//
// Owns: the figures (usage of each number, the responses nearest to it) and their two forms. Does not own:
// the alignment (data/alignment_info.h), the assignment (data/possibilities.h). Thread rule: main thread;
// memory is bounded by a few texts per number.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "data/corpus.h"
#include "data/possibilities.h"

namespace plural::trainer {

class AlignmentFigures {
 public:
  // `responses` of each group get a number, as group.responses would say. Precondition: the corpus is
  // aligned.
  AlignmentFigures(const data::Corpus& corpus, int responses);

  void Add(const data::Group& group);

  void Print() const;
  // {"possibilities","source","encoder","encoder_sha256","responses","numbers":[{"possibility","kind",
  //  "nearest","nearest_share","first":{"responses","used","suited"},"best":{...},
  //  "examples":[{"affinity","group","text"}]}]}
  nlohmann::ordered_json Json() const;

 private:
  // Responses that get a number in training, and those of them that have no better one.
  struct Usage {
    std::int64_t used = 0;
    std::int64_t suited = 0;
  };
  struct Example {
    float affinity = 0.0F;
    std::string group;
    std::string text;
  };
  struct Number {
    std::int64_t nearest = 0;  // responses whose best number it is
    Usage first, best;         // of each group's first `responses_`, of those that an aligned selection takes
    std::vector<Example> examples;
  };

  void AddExample(const data::Group& group, const data::Response& response, std::size_t number);
  void AddUsage(const data::Group& group, data::Selection selection);
  std::string Meaning(std::size_t number) const;

  const data::Corpus& corpus_;
  int responses_;
  std::int64_t all_responses_ = 0;
  std::vector<Number> numbers_;  // possibility k at k - 1
};

}  // namespace plural::trainer
