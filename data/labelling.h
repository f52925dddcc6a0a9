// Labelling: what a training method wants from a group, as weighted sequences.
//
// Owns: the definition of every method as likelihood and unlikelihood weights on response tokens, and
// the draw of possibility numbers. Does not own: how sequences share rows (tree.h) or how a loss is
// computed from edges (trainer/objective.h). Thread rule: pure functions.
#pragma once

#include <cstdint>
#include <vector>

#include "data/group.h"

namespace plural::data {

enum class Method : std::uint8_t { kPretrain, kOtoft, kOtmft, kPeft, kDistributionMatching, kCvf };

enum class Assignment : std::uint8_t {
  kSampled,     // drawn anew each epoch, without replacement
  kFixed,       // drawn once per group
  kSequential,  // k_i = i, for tests
  kAligned,     // a number means the same kind of response in every group: best total affinity
};

// Which N of a group's responses are used.
enum class Selection : std::uint8_t {
  kFirst,
  kAligned,  // those whose best assignment to numbers has the largest total affinity
};

// How a group's token losses become one number (docs/methods.md 2.3).
enum class Normalization : std::uint8_t {
  kGroupTokenMean,  // mean over positive tokens + alpha * mean over penalised tokens
  kSequenceSum,     // (sum over positive tokens + alpha * sum over penalised tokens) / positives
};

struct LabelSettings {
  Method method = Method::kPeft;
  int responses = 4;      // N: the first N responses are used; 0 = all (otoft always uses the first)
  int possibilities = 9;  // M: numbers are drawn from 1..M
  int max_negatives = 0;  // keep at most so many of the N(N-1) negatives; 0 = all
  Assignment assignment = Assignment::kSampled;
  Selection selection = Selection::kFirst;  // kAligned: only peft with aligned assignment
  double unlikelihood_alpha = 0.5;
  MaskMode mask = MaskMode::kContentFirst;
  Normalization normalization = Normalization::kGroupTokenMean;
  // cvf. 0: one latent a response, mixed of all. K: every response once below each of K latents.
  int latent_branches = 0;
  std::uint64_t seed = 42;
};

// Rows of cvf that carry no token of the vocabulary: trainer/cvf.h gives them their embeddings. They are
// negative, so that trees tell them apart from tokens and from each other.
inline constexpr Token kQueryToken = -1;  // after a response whose latent is asked for
// The latent before a response: of latent `slot` (exact), or the one mixed for response `slot` (from 0).
constexpr Token LatentToken(int slot) { return -2 - slot; }

// One sequence of a group. Weights are those of the group's own loss, before the division by the
// number of groups in the step.
struct LabelledSequence {
  std::vector<Token> prefix;         // prompt + tail; never predicted
  std::vector<Token> response;       // every token is predicted by the one before it
  std::vector<double> likelihood;    // weight of -log p, a response token
  std::vector<double> unlikelihood;  // weight of -log(1-p), a response token
  int response_index = 0;
  int possibility = 0;   // 0: none
  int latent = 0;        // cvf with branches: 1..K; else 0
  bool positive = true;  // false: a negative of peft
  double target = 0.0;   // p*(y|x) of distribution matching; 0 elsewhere

  // Leading response tokens that are predicted: all of them, but of a negative only up to its last penalised
  // token (at least one), since nothing reads what follows.
  std::size_t PredictedTokens() const;
};

struct LabelledGroup {
  std::int64_t group = 0;  // place in the corpus
  std::vector<LabelledSequence> sequences;
  std::int64_t positive_tokens = 0;
  std::int64_t penalised_tokens = 0;  // 0 in a group that has negatives: it adds 0, and is counted
  std::int64_t sequence_tokens = 0;   // tokens of all sequences, prefixes included: the plain cost
  double target_entropy_nats = 0.0;   // H(p*) of distribution matching
  // Of cvf: one a response, prompt + response + kQueryToken, whose one predicted token means nothing; and the
  // key of the group's draws in this epoch.
  std::vector<LabelledSequence> recognition;
  std::uint64_t latent_key = 0;
};

struct NumberedResponse {
  int response = 0;     // index into Group::responses
  int possibility = 0;  // 0: none
};

// `count` responses of the group and a different possibility number for each, in order of the responses: a
// pure function of (seed, epoch, group). An aligned assignment is the same in every epoch; numbers that suit
// equally well are tried in an order drawn by (seed, group), so that none of them is preferred over the
// corpus. Errors: DataError when more numbers are asked for than exist, or when an aligned assignment is
// asked for and the group has no affinities to exactly as many numbers.
std::vector<NumberedResponse> AssignPossibilities(const Group& group, const LabelSettings& settings,
                                                  std::int64_t epoch, int count);

// Labels `group` for `settings.method` in `epoch` (epochs count from 0). Sequences are the positives in
// order of the responses, then the negatives in order of (number, response):
//
//   pretrain, otoft, otmft   tail 0 and all | the first | the first N responses
//   peft                     positives (k_i, r_i) of the first N responses, or of the N that `selection`
//   takes;
//                            negatives (k_i, r_j) for all i != j, or max_negatives of them drawn by
//                            (seed, epoch, group id)
//   distribution_matching    tail 0 and all responses as targets, p*(y_i) = w_i / sum w, every token of y_i
//                            weighs p*(y_i), so that the loss is -sum p* log p; `normalization` does not
//                            apply
//   cvf                      the first N responses, the prefix ends with the response's latent token; with
//                            branches, in order of (response, latent)
//
// Likelihood of response i of weight w_i and T_i tokens, a token: w_i / sum_j w_j T_j (kGroupTokenMean) or
// w_i / sum_j w_j (kSequenceSum); with all weights 1 the plain token mean and the mean of sequence sums.
// Unlikelihood, a penalised token of a negative: alpha / penalised tokens, or alpha / N; the weights of
// responses do not apply. A negative whose response equals its number's positive is kept as it is: the
// tokens are raised and lowered, as the formula says.
//
// Errors: DataError naming the group when it cannot serve the method: fewer responses than N, an
// empty prefix, an empty response, fewer tails than M, targets that are not prefix-free (equal ones
// neither), weights that sum to zero.
LabelledGroup Label(const Group& group, const LabelSettings& settings, std::int64_t epoch);

}  // namespace plural::data
