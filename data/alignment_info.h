// The meaning of the possibility numbers of a corpus with aligned possibilities.
//
// Owns: the plain value type. Does not own: the affinities of responses (group.h), how they are found
// (`plural prepare --align`). Thread rule: a value.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace plural::data {

struct AlignmentInfo {
  int possibilities = 0;  // numbers 1..M have a meaning; 0: the corpus is not aligned
  std::string source;     // kmeans: clusters of sentence vectors | kinds: given by the author
  // kmeans only.
  std::string encoder;  // name of the sentence encoder, for display
  std::string encoder_sha256;
  std::int64_t dimensions = 0;  // of a vector
  // kinds only: the author's name for number k, at index k - 1.
  std::vector<std::string> kinds;
};

}  // namespace plural::data
