// Labelling: the pieces that training methods label a group with.
//
// Owns: the settings that decide weights, likelihood weights of chosen responses, errors that name the group.
// Does not own: which responses a method chooses and what else it adds (trainer/method/), possibility numbers
// (possibilities.h). Thread rule: pure functions.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "data/labelled_group.h"

namespace plural::data {

enum class Assignment : std::uint8_t {
  kSampled,     // drawn anew each epoch, without replacement
  kFixed,       // drawn once per group
  kSequential,  // k_i = i, for tests
  kAligned,     // a number means the same kind of response in every group: best total affinity
};

// The choice of the N responses of a group that are used.
enum class Selection : std::uint8_t {
  kFirst,
  kAligned,  // those whose best assignment to numbers has the largest total affinity
};

// The reduction of a group's token losses to one number (docs/methods.md 2.3).
enum class Normalization : std::uint8_t {
  kGroupTokenMean,  // mean over positive tokens + alpha * mean over penalised tokens
  kSequenceSum,     // (sum over positive tokens + alpha * sum over penalised tokens) / positives
};

struct LabelSettings {
  int responses = 4;      // N: the first N responses are used; 0 = all
  int possibilities = 9;  // M: numbers are drawn from 1..M
  int max_negatives = 0;  // keep at most this many of the N(N-1) negatives; 0 = all
  Assignment assignment = Assignment::kSampled;
  Selection selection = Selection::kFirst;  // kAligned: only poexft with aligned assignment
  double unlikelihood_alpha = 0.5;
  MaskMode mask = MaskMode::kContentFirst;
  Normalization normalization = Normalization::kGroupTokenMean;
  // cvf only. 0: one latent per response, mixed from all. K: each response under each of K latents.
  int latent_branches = 0;
  std::uint64_t seed = 42;
};

struct NumberedResponse {
  int response = 0;     // index into Group::responses
  int possibility = 0;  // 0: none
};

// Throws a DataError that names the group by id and number, followed by `what`.
[[noreturn]] void Refuse(const Group& group, const std::string& what);

// Errors: DataError naming the group when it has fewer than `used` responses or none, or when one of the
// first `candidates` has no tokens or a weight that is not finite and at least 0.
void RequireResponses(const Group& group, int used, int candidates);

// The first `count` responses, without numbers.
std::vector<NumberedResponse> WithoutNumbers(int count);

// The prompt and the tail of `possibility`. Errors: DataError naming the group when it has no such tail, or
// when prompt and tail are empty.
SharedTokens PrefixOf(const Group& group, int possibility);

// A response after a prefix of its group, PrefixOf its number, with weights of 0.
LabelledSequence SequenceOf(const Group& group, const NumberedResponse& numbered, SharedTokens prefix);

// One positive per used response, in their order. Every token of response i, with weight w_i and
// T_i tokens, has the weight w_i / sum_j w_j T_j (kGroupTokenMean) or w_i / sum_j w_j
// (kSequenceSum); with all weights 1 these are the plain token mean and the mean of sequence sums.
// Errors: those of PrefixOf; DataError when the weights sum to zero.
LabelledGroup Positives(const Group& group, const std::vector<NumberedResponse>& used,
                        Normalization normalization);

}  // namespace plural::data
