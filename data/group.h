// A group: one prompt and everything that may follow it.
//
// Owns: the plain value type that travels from the corpus to the labelling. Does not own: what is
// trained on it (labelling.h). Thread rule: a value; the loader's thread makes it and moves it on.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace plural::data {

using Token = std::int32_t;

// The words of a negative response that are penalised. The value is the mode's bit in
// Response::masks, which `plural prepare` computes by position in the real tokenisation.
enum class MaskMode : std::uint8_t { kContentFirst = 0, kAllFirst = 1, kRepoCompat = 2 };

struct Response {
  std::vector<Token> tokens;        // ends with the terminator where one is trained
  double weight = 1.0;              // share of the target distribution (distribution matching)
  std::vector<std::uint8_t> masks;  // one byte per token; bit MaskMode: penalised in a negative
  // Its affinity to numbers 1, 2, ..., in [-1, 1]; empty in a corpus without aligned possibilities.
  std::vector<float> affinity = {};

  bool Penalised(std::size_t position, MaskMode mode) const {
    return (masks[position] >> static_cast<unsigned>(mode)) & 1U;
  }
};

struct Group {
  std::int64_t index = 0;  // its place in the corpus
  std::string id;
  std::vector<Token> prompt_tokens;  // what all sequences of the group share by construction
  // tails[k] closes the prompt for possibility number k = 1..M; tails[0] closes it without a number.
  std::vector<std::vector<Token>> tails;
  std::vector<Response> responses;

  int Possibilities() const { return static_cast<int>(tails.size()) - 1; }
};

}  // namespace plural::data
