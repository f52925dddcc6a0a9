// Methods: the table of training methods, each a value that describes one of them completely.
//
// Owns: what a method can define, and the table. Does not own: the methods. Each is one file of
// methods/, from whose names CMake writes the table (docs/adding-a-method.md). Thread rule:
// constants and pure functions. No libtorch here, so that recipes are read without it.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/group.h"
#include "data/labelling.h"
#include "data/rows.h"
#include "trainer/method/settings.h"
#include "trainer/method/sums.h"

namespace at {
class Tensor;
}

namespace plural::trainer {

class Decoder;
class PassLosses;    // pass_losses.h
struct LossContext;  // pass_losses.h
struct EdgeValues;   // objective.h

// ---- Recipe ----

// A number in the recipe that only this method reads. Other methods refuse it, and do not print it.
struct OwnKey {
  std::string_view name;  // "loss.temperature"
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();
  bool low_open = false;  // low itself is not allowed
  double otherwise = 0.0;
  std::string_view meaning;  // one line for docs/recipes.md
};

// A default that differs from the recipe's own.
struct KeyDefault {
  std::string_view key;
  std::string_view json;  // the value
};

// ---- Corpus ----

enum class UsedResponses : std::uint8_t {
  kFirst,    // one, whatever group.responses is
  kSetting,  // group.responses of them; 0: all
  kAll,
};

// ---- Cost, from lengths alone ----

// Counts of a group's used responses, known before anything is read.
struct UsedLengths {
  double tail = 0.0;             // longest tail
  double responses = 0.0;        // number of used responses
  double response_tokens = 0.0;  // of the used responses
  double fed = 0.0;              // without the last token of each, which is only predicted
};
// The rows of a tree besides its prompt's, and the number of its sequences.
struct TreeExtent {
  double rows = 0.0, sequences = 0.0;
};

// ---- Figures ----

// Where a figure is printed.
enum Lines : unsigned { kStepLine = 1, kEpochLine = 2, kValidationLine = 4 };

struct Figure {
  std::string_view name;  // in metrics.jsonl, unit included
  unsigned lines = 0;     // of enum Lines
  // The figure from the sums of the step, epoch or validation; nothing: it is not printed. Null:
  // the sum of this name per group.
  std::optional<double> (*value)(const Sums& sums, const MethodSettings& settings) = nullptr;
};

inline constexpr std::string_view kTwoTerms[] = {"likelihood", "unlikelihood"};

struct Method {
  std::string_view name;             // what a recipe's `method` says, and what is printed
  std::string_view other_name = {};  // an older word for it, which stays that of a run's identity

  std::span<const OwnKey> keys = {};
  std::span<const KeyDefault> defaults = {};

  UsedResponses responses = UsedResponses::kSetting;
  // A possibility number of the corpus stands between prompt and response, also in sampling.
  bool numbers = false;
  // Other responses of the group are penalised, so it needs two.
  bool negatives = false;
  // A group's responses are a distribution by their weights: all groups are labelled once before the first
  // step, and training can stop when the loss is near the targets' entropy.
  bool target_sets = false;
  // The decoder has latents, and a latent row stands before each response (model/latents.h).
  bool latents = false;

  // Labels `group`, whose responses are checked, for `epoch` (counted from 0). Pure. `used`: the
  // number of its responses that are used. Errors: DataError naming the group. Null: the used
  // responses as positives, without numbers.
  data::LabelledGroup (*label)(const data::Group& group, int used, const data::LabelSettings& settings,
                               std::int64_t epoch) = nullptr;
  // The trees of a group. Null: one, of the used responses under the longest tail.
  std::vector<TreeExtent> (*extents)(const UsedLengths& lengths,
                                     const data::LabelSettings& settings) = nullptr;

  // The loss is the sum of named terms, each a mean over the step's groups.
  std::span<const std::string_view> terms = kTwoTerms;
  // One of the three: each term from the values of a pass's edges alone; null: likelihood and
  // unlikelihood, weighted (objective.h).
  std::vector<at::Tensor> (*edge_loss)(const EdgeValues& edges, const MethodSettings& settings) = nullptr;
  // Or each term from the log-probabilities of a group's whole responses, in the order of its
  // sequences: log_p_Q, fp64, [sequences]; `scale` is 1 / groups of the step. This takes two phases
  // where a group is cut (leaf_losses.h).
  std::vector<at::Tensor> (*leaf_loss)(const data::LabelledGroup& group, const at::Tensor& log_p_Q,
                                       double scale, const MethodSettings& settings) = nullptr;
  // Or an implementation of its own.
  std::unique_ptr<PassLosses> (*losses)(const LossContext& context) = nullptr;
  // The temperature b at which edge_loss reads log softmax(z / b), too. Null: none.
  double (*temperature)(const MethodSettings& settings) = nullptr;

  // Names of sums besides the terms, in training and in validation.
  std::vector<std::string> (*sums)(const MethodSettings& settings) = nullptr;
  // Adds one group to them, from the log-probability of each of its sequences, nats. Null: no whole
  // sequence is needed.
  void (*add_sums)(const data::LabelledGroup& group, const std::vector<double>& sequence_log_p,
                   Sums& sums) = nullptr;
  // Names of sums of validation alone, and what adds one group to them, by its own forward passes.
  std::span<const std::string_view> validation_sums = {};
  void (*add_validation_sums)(const Decoder& model, const data::Group& group, const data::PackSettings& pack,
                              Sums& sums) = nullptr;
  std::span<const Figure> figures = {};
};

// All methods, in order of their files' names.
std::span<const Method* const> Methods();
// Errors: std::logic_error for an unknown word.
const Method& MethodNamed(std::string_view word);

// The default values of all methods' own keys.
OwnValues OwnDefaults();

// The number of a group's responses that the method uses.
std::int64_t CountUsed(const Method& method, std::int64_t found, const data::LabelSettings& settings);

// Labels `group` in `epoch`. Sequences are the positives in order of the responses, then what the
// method adds. Errors: DataError naming the group when it cannot serve the method: fewer responses
// than N, an empty prefix, an empty response, fewer tails than M, weights that sum to zero, and the
// method's own errors.
data::LabelledGroup Label(const Method& method, const data::Group& group, const data::LabelSettings& settings,
                          std::int64_t epoch);

// Sums of a step: "groups", "unpenalised_groups" (with negatives none of whose tokens is
// penalised), "rows", "sequence_tokens", "recomputed_passes", "likelihood", "unlikelihood", the
// method's other terms and its sums. Terms are means over the step's groups, the rest are sums.
Sums StepSums(const Method& method, const MethodSettings& settings);
// Sums of an epoch: "groups", "unpenalised_groups", "loss", the terms besides likelihood and
// unlikelihood, and the method's sums; everything is a sum over groups.
Sums EpochSums(const Method& method, const MethodSettings& settings);
// Sums of a validation: "groups", the terms, the method's sums and those of validation,
// "logprob_nats" and "response_tokens" of the positives; everything is a sum over groups.
Sums ValidationSums(const Method& method, const MethodSettings& settings);
void AddStep(const Method& method, const Sums& step, Sums& epoch);
double LossOf(const Method& method, const Sums& sums);

struct NamedFigure {
  std::string_view name;
  double value = 0.0;
};
// What the method prints in `line`: its terms besides likelihood and unlikelihood, its figures.
std::vector<NamedFigure> FiguresOf(const Method& method, const MethodSettings& settings, Lines line,
                                   const Sums& sums);

}  // namespace plural::trainer
