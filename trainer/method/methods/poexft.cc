// Possibility exploration fine-tuning: N numbers, N responses; each response is likely under its own number
// and its content words are unlikely under every other one (docs/methods.md 3.4). Not Hugging Face's PEFT
// library.
#include <algorithm>
#include <string>

#include "data/possibilities.h"
#include "data/random.h"
#include "trainer/method/evaluation.h"
#include "trainer/method/method.h"

namespace plural::trainer::methods {
namespace {

struct NegativePair {
  std::size_t number;    // index of the possibility number among the used responses
  std::size_t response;  // index of a response that belongs to another number
};

// All ordered pairs i != j, or a random `settings.max_negatives` of them, in order.
std::vector<NegativePair> NegativePairs(const data::Group& group, const data::LabelSettings& settings,
                                        std::int64_t epoch, std::size_t responses) {
  std::vector<NegativePair> pairs;
  for (std::size_t i = 0; i < responses; ++i) {
    for (std::size_t j = 0; j < responses; ++j) {
      if (i != j) pairs.push_back({i, j});
    }
  }
  const auto keep = static_cast<std::size_t>(settings.max_negatives);
  if (keep == 0 || keep >= pairs.size()) return pairs;
  const data::CounterRandom random{data::MixKey(settings.seed, data::Purpose::kNegatives,
                                                data::HashName(group.id), static_cast<std::uint64_t>(epoch))};
  std::vector<int> kept =
      data::SampleWithoutReplacement(random, static_cast<int>(pairs.size()), static_cast<int>(keep));
  std::ranges::sort(kept);
  std::vector<NegativePair> subset;
  for (const int pair : kept) subset.push_back(pairs[static_cast<std::size_t>(pair - 1)]);
  return subset;
}

void AddNegatives(const data::Group& group, const data::LabelSettings& settings, std::int64_t epoch,
                  const std::vector<data::NumberedResponse>& used, data::LabelledGroup& labelled) {
  const std::size_t positives = used.size();
  for (const NegativePair& pair : NegativePairs(group, settings, epoch, positives)) {
    const int index = used[pair.response].response;
    const data::Response& response = group.responses[static_cast<std::size_t>(index)];
    if (response.masks.size() != response.tokens.size()) {
      data::Refuse(group, "response " + std::to_string(index) + " has " +
                              std::to_string(response.tokens.size()) + " tokens and " +
                              std::to_string(response.masks.size()) +
                              " unlikelihood masks, which must be equal; prepare the corpus again");
    }
    const data::LabelledSequence& positive = labelled.sequences[pair.number];  // of the same number
    data::LabelledSequence negative =
        data::SequenceOf(group, {.response = index, .possibility = positive.possibility}, positive.prefix);
    negative.positive = false;
    for (std::size_t t = 0; t < response.tokens.size(); ++t) {
      if (!response.Penalised(t, settings.mask)) continue;
      negative.unlikelihood[t] = settings.unlikelihood_alpha;
      ++labelled.penalised_tokens;
    }
    labelled.sequences.push_back(std::move(negative));
  }
  // The denominator is known only now. Without a penalised token all weights are 0 and stay so.
  const double denominator = settings.normalization == data::Normalization::kGroupTokenMean
                                 ? static_cast<double>(labelled.penalised_tokens)
                                 : static_cast<double>(positives);
  for (std::size_t s = positives; s < labelled.sequences.size(); ++s) {
    for (double& weight : labelled.sequences[s].unlikelihood) {
      if (weight != 0.0) weight /= denominator;
    }
  }
}

// Positives (k_i, r_i) of the first N responses, or of the N that `selection` chooses; then the
// negatives (k_i, r_j) for all i != j in order of (number, response), or max_negatives of them
// drawn by (seed, epoch, group id). A penalised token of a negative has the weight alpha /
// penalised tokens, or alpha / N for sequence sums; the weights of responses do not apply. A
// negative whose response equals its number's positive is kept as it is: its tokens are raised and
// lowered, as the formula says. Errors: those of AssignPossibilities.
data::LabelledGroup LabelPossibilities(const data::Group& group, int used,
                                       const data::LabelSettings& settings, std::int64_t epoch) {
  const std::vector<data::NumberedResponse> numbers = data::AssignPossibilities(group, settings, epoch, used);
  data::LabelledGroup labelled = data::Positives(group, numbers, settings.normalization);
  AddNegatives(group, settings, epoch, numbers, labelled);
  return labelled;
}

// Every number has its own tail, followed by its positive and its share of the negatives.
std::vector<TreeExtent> PossibilityExtents(const UsedLengths& lengths, const data::LabelSettings& settings) {
  const double numbers = lengths.responses;
  if (numbers == 0.0) return {{lengths.tail + lengths.fed, 0.0}};
  double negatives = numbers * (numbers - 1.0);
  if (settings.max_negatives > 0) negatives = std::min<double>(negatives, settings.max_negatives);
  const double sequences = numbers + negatives;
  return {{numbers * lengths.tail + lengths.fed * sequences / numbers, sequences}};
}

constexpr std::string_view kMixtureEntropy = "possibility_mixture_entropy_nats";
constexpr std::string_view kInformation = "possibility_information_nats";

constexpr std::string_view kValidationSums[] = {kMixtureEntropy, kInformation};

void AddValidation(const Decoder& model, const data::Group& group, const data::PackSettings& pack,
                   Sums& sums) {
  const PossibilityFigures figures = EvaluatePossibilities(model, group, pack).value_or(PossibilityFigures{});
  sums[kMixtureEntropy] += figures.mixture_entropy_nats;
  sums[kInformation] += figures.information_nats;
}

constexpr Figure kPossibilityFigures[] = {{kMixtureEntropy, kValidationLine},
                                          {kInformation, kValidationLine}};

}  // namespace

extern const Method poexft;
constinit const Method poexft = {
    .name = "poexft",
    .other_name = "peft",  // of the paper, and also that of a library for adapters
    .numbers = true,
    .negatives = true,
    .label = LabelPossibilities,
    .extents = PossibilityExtents,
    .validation_sums = kValidationSums,
    .add_validation_sums = AddValidation,
    .figures = kPossibilityFigures};

}  // namespace plural::trainer::methods
