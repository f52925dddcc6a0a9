#include "data/labelling.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>

#include "data/assignment.h"
#include "data/error.h"
#include "data/random.h"

namespace plural::data {
namespace {

[[noreturn]] void Refuse(const Group& group, const std::string& what) {
  throw DataError("group '" + group.id + "' (number " + std::to_string(group.index) +
                  " of the corpus, from 0): " + what);
}

std::vector<Token> Prefix(const Group& group, int possibility) {
  if (possibility >= static_cast<int>(group.tails.size())) {
    Refuse(group, "has no tail for possibility number " + std::to_string(possibility) + ", only " +
                      std::to_string(group.tails.size()) + " tails counted from 0; prepare the corpus again");
  }
  const std::vector<Token>& tail = group.tails[static_cast<std::size_t>(possibility)];
  std::vector<Token> prefix;
  prefix.reserve(group.prompt_tokens.size() + tail.size());
  prefix.insert(prefix.end(), group.prompt_tokens.begin(), group.prompt_tokens.end());
  prefix.insert(prefix.end(), tail.begin(), tail.end());
  if (prefix.empty()) {
    Refuse(group,
           "its prompt has no tokens, so nothing predicts the first response token; prepare the corpus "
           "with a begin-of-text token or a prompt template");
  }
  return prefix;
}

LabelledSequence Sequence(const Group& group, int possibility, std::size_t response) {
  LabelledSequence sequence;
  sequence.prefix = Prefix(group, possibility);
  sequence.response = group.responses[response].tokens;
  sequence.likelihood.assign(sequence.response.size(), 0.0);
  sequence.unlikelihood.assign(sequence.response.size(), 0.0);
  sequence.response_index = static_cast<int>(response);
  sequence.possibility = possibility;
  return sequence;
}

// How many of the group's responses the settings use; checks that they exist and can be trained.
int UsedResponses(const Group& group, const LabelSettings& settings) {
  const int found = static_cast<int>(group.responses.size());
  int used = found;
  if (settings.method == Method::kOtoft) {
    used = 1;
  } else if (settings.method == Method::kOtmft || settings.method == Method::kPeft ||
             settings.method == Method::kCvf) {
    used = settings.responses == 0 ? found : settings.responses;
  }
  if (found < used || found == 0) {
    Refuse(group, "has " + std::to_string(found) + " responses, " + std::to_string(std::max(used, 1)) +
                      " are needed; lower group.responses (0 = all that a group has) or take the group "
                      "out of the corpus");
  }
  const int candidates = settings.selection == Selection::kAligned ? found : used;
  for (int i = 0; i < candidates; ++i) {
    const Response& response = group.responses[static_cast<std::size_t>(i)];
    if (response.tokens.empty()) {
      Refuse(group, "response " + std::to_string(i) + " has no tokens; prepare the corpus without it");
    }
    if (!std::isfinite(response.weight) || response.weight < 0) {
      Refuse(group, "response " + std::to_string(i) + " has the weight " + std::to_string(response.weight) +
                        "; weights are finite and at least 0");
    }
  }
  return used;
}

const Response& ResponseOf(const Group& group, const NumberedResponse& used) {
  return group.responses[static_cast<std::size_t>(used.response)];
}

// The first `count` responses, without numbers.
std::vector<NumberedResponse> WithoutNumbers(int count) {
  std::vector<NumberedResponse> used;
  for (int i = 0; i < count; ++i) used.push_back({.response = i});
  return used;
}

// One positive a used response; every token of response i weighs w_i / (sum of w over the tokens), or
// w_i / (sum of w over the responses) for sequence sums.
LabelledGroup Positives(const Group& group, const std::vector<NumberedResponse>& used,
                        Normalization normalization) {
  LabelledGroup labelled;
  labelled.group = group.index;
  double total = 0.0;
  for (const NumberedResponse& numbered : used) {
    const Response& response = ResponseOf(group, numbered);
    const double items =
        normalization == Normalization::kGroupTokenMean ? static_cast<double>(response.tokens.size()) : 1.0;
    total += response.weight * items;
  }
  if (!(total > 0.0) || !std::isfinite(total)) {
    Refuse(group, "the weights of its responses sum to " + std::to_string(total) +
                      ", which must be finite and above 0; give at least one response a weight");
  }
  for (const NumberedResponse& numbered : used) {
    LabelledSequence sequence =
        Sequence(group, numbered.possibility, static_cast<std::size_t>(numbered.response));
    std::ranges::fill(sequence.likelihood, ResponseOf(group, numbered).weight / total);
    labelled.positive_tokens += static_cast<std::int64_t>(sequence.response.size());
    labelled.sequences.push_back(std::move(sequence));
  }
  return labelled;
}

struct NegativePair {
  std::size_t number;    // place of the possibility number among the used responses
  std::size_t response;  // place of a response that belongs to another number
};

// All ordered pairs i != j, or a random `settings.max_negatives` of them, in order.
std::vector<NegativePair> NegativePairs(const Group& group, const LabelSettings& settings, std::int64_t epoch,
                                        std::size_t responses) {
  std::vector<NegativePair> pairs;
  for (std::size_t i = 0; i < responses; ++i) {
    for (std::size_t j = 0; j < responses; ++j) {
      if (i != j) pairs.push_back({i, j});
    }
  }
  const auto keep = static_cast<std::size_t>(settings.max_negatives);
  if (keep == 0 || keep >= pairs.size()) return pairs;
  const CounterRandom random{
      MixKey(settings.seed, Purpose::kNegatives, HashName(group.id), static_cast<std::uint64_t>(epoch))};
  std::vector<int> kept =
      SampleWithoutReplacement(random, static_cast<int>(pairs.size()), static_cast<int>(keep));
  std::ranges::sort(kept);
  std::vector<NegativePair> subset;
  for (const int pair : kept) subset.push_back(pairs[static_cast<std::size_t>(pair - 1)]);
  return subset;
}

void AddNegatives(const Group& group, const LabelSettings& settings, std::int64_t epoch,
                  const std::vector<NumberedResponse>& used, LabelledGroup& labelled) {
  const std::size_t positives = used.size();
  for (const NegativePair& pair : NegativePairs(group, settings, epoch, positives)) {
    const int index = used[pair.response].response;
    const Response& response = ResponseOf(group, used[pair.response]);
    if (response.masks.size() != response.tokens.size()) {
      Refuse(group, "response " + std::to_string(index) + " has " + std::to_string(response.tokens.size()) +
                        " tokens and " + std::to_string(response.masks.size()) +
                        " unlikelihood masks, which must be equal; prepare the corpus again");
    }
    LabelledSequence negative =
        Sequence(group, used[pair.number].possibility, static_cast<std::size_t>(index));
    negative.positive = false;
    for (std::size_t t = 0; t < response.tokens.size(); ++t) {
      if (!response.Penalised(t, settings.mask)) continue;
      negative.unlikelihood[t] = settings.unlikelihood_alpha;
      ++labelled.penalised_tokens;
    }
    labelled.sequences.push_back(std::move(negative));
  }
  // Only now is the denominator known. Without a penalised token all weights are 0 and nothing is divided.
  const double denominator = settings.normalization == Normalization::kGroupTokenMean
                                 ? static_cast<double>(labelled.penalised_tokens)
                                 : static_cast<double>(positives);
  for (std::size_t s = positives; s < labelled.sequences.size(); ++s) {
    for (double& weight : labelled.sequences[s].unlikelihood) {
      if (weight != 0.0) weight /= denominator;
    }
  }
}

// Turns positives into the sequences of cvf: what recognises each response's latent, and the response below
// its latent or below every one (docs/methods.md 4.2).
void AddLatents(const Group& group, const LabelSettings& settings, std::int64_t epoch,
                LabelledGroup& labelled) {
  labelled.latent_key =
      MixKey(settings.seed, Purpose::kLatents, HashName(group.id), static_cast<std::uint64_t>(epoch));
  std::vector<LabelledSequence> positives;
  positives.swap(labelled.sequences);
  for (LabelledSequence& positive : positives) {
    LabelledSequence recognition = positive;
    recognition.prefix.insert(recognition.prefix.end(), positive.response.begin(), positive.response.end());
    recognition.prefix.push_back(kQueryToken);
    recognition.response = {0};
    recognition.likelihood = recognition.unlikelihood = {0.0};
    labelled.recognition.push_back(std::move(recognition));

    const bool branches = settings.latent_branches > 0;
    for (int latent = 0; latent < std::max(settings.latent_branches, 1); ++latent) {
      LabelledSequence sequence = positive;
      sequence.prefix.push_back(LatentToken(branches ? latent : positive.response_index));
      sequence.latent = branches ? latent + 1 : 0;
      labelled.sequences.push_back(std::move(sequence));
    }
  }
}

std::string FirstTokens(const std::vector<Token>& tokens) {
  constexpr std::size_t kShown = 8;
  std::string text = "[";
  for (std::size_t i = 0; i < std::min(tokens.size(), kShown); ++i) {
    text += (i == 0 ? "" : " ") + std::to_string(tokens[i]);
  }
  return text + (tokens.size() > kShown ? " ...]" : "]");
}

// A target that begins another one would get the other's mass too: the loss would have no minimum at p*
// (docs/methods.md 3.5).
void CheckPrefixFree(const Group& group) {
  const std::vector<Response>& targets = group.responses;
  std::vector<std::size_t> order(targets.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(
      order, [&](std::size_t a, std::size_t b) { return targets[a].tokens < targets[b].tokens; });
  // In lexicographic order a prefix stands directly before a sequence that it begins.
  for (std::size_t i = 1; i < order.size(); ++i) {
    const std::vector<Token>& shorter = targets[order[i - 1]].tokens;
    const std::vector<Token>& longer = targets[order[i]].tokens;
    if (shorter.size() > longer.size() || !std::equal(shorter.begin(), shorter.end(), longer.begin()))
      continue;
    const std::string first = std::to_string(order[i - 1]);
    const std::string second = std::to_string(order[i]);
    const std::string tokens = std::to_string(shorter.size()) + " tokens " + FirstTokens(shorter);
    if (shorter.size() == longer.size()) {
      Refuse(group, "targets " + first + " and " + second + " (from 0) are equal, " + tokens +
                        "; no target may begin another: keep one of them with the sum of their weights");
    }
    Refuse(group, "target " + first + ", " + tokens + ", begins target " + second + ", " +
                      std::to_string(longer.size()) + " tokens " + FirstTokens(longer) +
                      " (both from 0); no target may begin another: prepare the corpus with a terminator "
                      "after each target (eos: true)");
  }
}

void MarkTargets(LabelledGroup& labelled) {
  for (LabelledSequence& sequence : labelled.sequences) {
    sequence.target = sequence.likelihood.front();
    if (sequence.target > 0.0) labelled.target_entropy_nats -= sequence.target * std::log(sequence.target);
  }
}

void RequireAffinities(const Group& group, int candidates, int possibilities) {
  for (int i = 0; i < candidates; ++i) {
    const std::size_t found = group.responses[static_cast<std::size_t>(i)].affinity.size();
    if (found == static_cast<std::size_t>(possibilities)) continue;
    Refuse(group, "response " + std::to_string(i) + " has affinities to " + std::to_string(found) +
                      " possibility numbers, group.possibilities is " + std::to_string(possibilities) +
                      "; group.assignment aligned needs a corpus made with `plural prepare --align`, and as "
                      "many numbers");
  }
}

std::vector<NumberedResponse> AlignedPossibilities(const Group& group, const LabelSettings& settings,
                                                   int count) {
  const int numbers = settings.possibilities;
  const int candidates =
      settings.selection == Selection::kAligned ? static_cast<int>(group.responses.size()) : count;
  RequireAffinities(group, candidates, numbers);
  const CounterRandom random{MixKey(settings.seed, Purpose::kPossibilities, HashName(group.id))};
  const std::vector<int> order = SampleWithoutReplacement(random, numbers, numbers);
  std::vector<float> affinity;
  affinity.reserve(static_cast<std::size_t>(candidates) * order.size());
  for (int i = 0; i < candidates; ++i) {
    const std::vector<float>& own = group.responses[static_cast<std::size_t>(i)].affinity;
    for (const int number : order) affinity.push_back(own[static_cast<std::size_t>(number - 1)]);
  }
  const std::vector<int> columns = AssignByAffinity(affinity, candidates, numbers, count);
  std::vector<NumberedResponse> used;
  for (int i = 0; i < candidates; ++i) {
    const int column = columns[static_cast<std::size_t>(i)];
    if (column >= 0) used.push_back({.response = i, .possibility = order[static_cast<std::size_t>(column)]});
  }
  return used;
}

}  // namespace

std::size_t LabelledSequence::PredictedTokens() const {
  if (positive) return response.size();
  std::size_t last = response.size();
  while (last > 1 && unlikelihood[last - 1] == 0.0) --last;
  return last;
}

std::vector<NumberedResponse> AssignPossibilities(const Group& group, const LabelSettings& settings,
                                                  std::int64_t epoch, int count) {
  if (count > settings.possibilities) {
    Refuse(group, std::to_string(count) +
                      " responses need as many different possibility numbers, there are " +
                      std::to_string(settings.possibilities) +
                      "; raise group.possibilities or lower group.responses");
  }
  if (settings.possibilities > group.Possibilities()) {
    Refuse(group, "is prepared for " + std::to_string(std::max(group.Possibilities(), 0)) +
                      " possibility numbers, group.possibilities is " +
                      std::to_string(settings.possibilities) +
                      "; lower it or prepare the corpus with as many");
  }
  if (settings.assignment == Assignment::kAligned) return AlignedPossibilities(group, settings, count);
  std::vector<NumberedResponse> used = WithoutNumbers(count);
  if (settings.assignment == Assignment::kSequential) {
    for (NumberedResponse& numbered : used) numbered.possibility = numbered.response + 1;
    return used;
  }
  const std::int64_t draw = settings.assignment == Assignment::kFixed ? 0 : epoch;
  const CounterRandom random{
      MixKey(settings.seed, Purpose::kPossibilities, HashName(group.id), static_cast<std::uint64_t>(draw))};
  const std::vector<int> drawn = SampleWithoutReplacement(random, settings.possibilities, count);
  for (std::size_t i = 0; i < used.size(); ++i) used[i].possibility = drawn[i];
  return used;
}

LabelledGroup Label(const Group& group, const LabelSettings& settings, std::int64_t epoch) {
  const int used = UsedResponses(group, settings);
  LabelledGroup labelled;
  switch (settings.method) {
    case Method::kPretrain:
    case Method::kOtoft:
    case Method::kOtmft:
      labelled = Positives(group, WithoutNumbers(used), settings.normalization);
      break;
    case Method::kPeft: {
      const std::vector<NumberedResponse> numbers = AssignPossibilities(group, settings, epoch, used);
      labelled = Positives(group, numbers, settings.normalization);
      AddNegatives(group, settings, epoch, numbers, labelled);
      break;
    }
    case Method::kDistributionMatching:
      // The weights divided by their sum are p*, and log p of a target is the sum over its tokens.
      CheckPrefixFree(group);
      labelled = Positives(group, WithoutNumbers(used), Normalization::kSequenceSum);
      MarkTargets(labelled);
      break;
    case Method::kCvf:
      labelled = Positives(group, WithoutNumbers(used), settings.normalization);
      AddLatents(group, settings, epoch, labelled);
      break;
  }
  for (const auto* sequences : {&labelled.sequences, &labelled.recognition}) {
    for (const LabelledSequence& sequence : *sequences) {
      labelled.sequence_tokens +=
          static_cast<std::int64_t>(sequence.prefix.size() + sequence.response.size());
    }
  }
  return labelled;
}

}  // namespace plural::data
