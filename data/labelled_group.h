// A labelled group: what a training method takes from a group, as weighted sequences.
//
// Owns: the value types. Does not own: who makes them (trainer/method/) or how sequences share rows (tree.h).
// Thread rule: values.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "data/group.h"

namespace plural::data {

// Rows of cvf that carry no token of the vocabulary: trainer/method/latent_unit.h gives them their
// embeddings. They are negative, so that trees tell them apart from tokens and from each other.
inline constexpr Token kQueryToken = -1;  // after a response whose latent is recognised
// The latent before a response: latent `slot` (exact), or the mixture for response `slot`; from 0.
constexpr Token LatentToken(int slot) { return -2 - slot; }

// Tokens that many sequences begin with, held once: copies share them. They never change.
class SharedTokens {
 public:
  SharedTokens() : SharedTokens(std::vector<Token>()) {}
  SharedTokens(std::vector<Token> tokens)  // NOLINT: a vector becomes one as a string becomes a view
      : tokens_(std::make_shared<const std::vector<Token>>(std::move(tokens))) {}

  const std::vector<Token>& operator*() const { return *tokens_; }
  const std::vector<Token>* operator->() const { return tokens_.get(); }

 private:
  std::shared_ptr<const std::vector<Token>> tokens_;
};

// One sequence of a group. Weights are those of the group's own loss, before the division by the
// number of groups in the step.
struct LabelledSequence {
  SharedTokens prefix;               // prompt + tail; never predicted
  std::vector<Token> response;       // every token is predicted by the one before it
  std::vector<double> likelihood;    // weight of -log p, per response token
  std::vector<double> unlikelihood;  // weight of -log(1-p), per response token
  int response_index = 0;
  int possibility = 0;   // 0: none
  int latent = 0;        // cvf with branches: 1..K; else 0
  bool positive = true;  // false: a negative of poexft
  double target = 0.0;   // p*(y|x) of distribution matching; 0 elsewhere

  // The number of leading response tokens that are predicted: all of them, but for a negative only
  // those up to its last penalised token (at least one), since nothing depends on what follows.
  std::size_t PredictedTokens() const;
};

struct LabelledGroup {
  std::int64_t group = 0;  // place in the corpus
  std::vector<LabelledSequence> sequences;
  std::int64_t positive_tokens = 0;
  std::int64_t penalised_tokens = 0;  // 0 with negatives: the group adds 0, and is counted
  std::int64_t sequence_tokens = 0;   // tokens of all sequences, prefixes included: the plain cost
  double target_entropy_nats = 0.0;   // H(p*) of distribution matching
  // cvf only: one sequence per response, prompt + response + kQueryToken, whose one predicted token
  // is not used; and the key of the group's draws in this epoch.
  std::vector<LabelledSequence> recognition;
  std::uint64_t latent_key = 0;
};

}  // namespace plural::data
