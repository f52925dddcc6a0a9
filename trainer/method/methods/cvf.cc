// The conditional variational framework: one latent between prompt and response (docs/methods.md 4).
#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "data/random.h"
#include "trainer/method/latent_figures.h"
#include "trainer/method/latent_unit.h"
#include "trainer/method/method.h"

namespace plural::trainer::methods {
namespace {

// Turns positives into the sequences of cvf: one per response that recognises its latent, and the
// response under that latent or under every one (docs/methods.md 4.2).
void AddLatents(const data::Group& group, const data::LabelSettings& settings, std::int64_t epoch,
                data::LabelledGroup& labelled) {
  labelled.latent_key = data::MixKey(settings.seed, data::Purpose::kLatents, data::HashName(group.id),
                                     static_cast<std::uint64_t>(epoch));
  const std::vector<data::LabelledSequence> positives = std::exchange(labelled.sequences, {});
  const bool branches = settings.latent_branches > 0;
  const auto below = [](const data::LabelledSequence& positive, int latent) {
    std::vector<data::Token> prefix = *positive.prefix;
    prefix.push_back(data::LatentToken(latent));
    return data::SharedTokens(std::move(prefix));
  };
  std::vector<data::SharedTokens> below_latent;  // the same for all responses, which have no numbers
  for (int latent = 0; latent < settings.latent_branches; ++latent) {
    below_latent.push_back(below(positives.front(), latent));
  }
  for (const data::LabelledSequence& positive : positives) {
    data::LabelledSequence recognition = positive;
    std::vector<data::Token> known = *positive.prefix;
    known.insert(known.end(), positive.response.begin(), positive.response.end());
    known.push_back(data::kQueryToken);
    recognition.prefix = std::move(known);
    recognition.response = {0};
    recognition.likelihood = recognition.unlikelihood = {0.0};
    labelled.recognition.push_back(std::move(recognition));

    for (int latent = 0; latent < std::max(settings.latent_branches, 1); ++latent) {
      data::LabelledSequence sequence = positive;
      sequence.prefix = branches ? below_latent[static_cast<std::size_t>(latent)]
                                 : below(positive, positive.response_index);
      sequence.latent = branches ? latent + 1 : 0;
      labelled.sequences.push_back(std::move(sequence));
    }
  }
}

// The first N responses; the prefix ends with the response's latent token; with branches, in order of
// (response, latent).
data::LabelledGroup LabelLatents(const data::Group& group, int used, const data::LabelSettings& settings,
                                 std::int64_t epoch) {
  data::LabelledGroup labelled = data::Positives(group, data::WithoutNumbers(used), settings.normalization);
  AddLatents(group, settings, epoch, labelled);
  return labelled;
}

// Recognition feeds the whole response and the query; generation the responses under each latent.
std::vector<TreeExtent> LatentExtents(const UsedLengths& lengths, const data::LabelSettings& settings) {
  const double responses = lengths.responses;
  const double branches = std::max(settings.latent_branches, 1);
  const double latent_rows = settings.latent_branches > 0 ? branches : responses;
  return {{lengths.tail + lengths.response_tokens + responses, responses},
          {lengths.tail + branches * lengths.fed + latent_rows, branches * responses}};
}

constexpr std::string_view kLatentTerms[] = {"likelihood", "bow"};

std::vector<std::string> LatentSumNames(const MethodSettings& settings) {
  return LatentSums::Names(settings.latent.latents);
}

std::optional<double> UsedLatents(const Sums& sums, const MethodSettings& /*settings*/) {
  return FiguresOfLatents(LatentSums::From(sums)).used_latents;
}
std::optional<double> Information(const Sums& sums, const MethodSettings& /*settings*/) {
  return FiguresOfLatents(LatentSums::From(sums)).information_nats;
}
std::optional<double> Spread(const Sums& sums, const MethodSettings& settings) {
  if (settings.latent.estimator != LatentEstimator::kExact) return std::nullopt;
  return FiguresOfLatents(LatentSums::From(sums)).latent_nll_spread_nats;
}

constexpr unsigned kAllLines = kStepLine | kEpochLine | kValidationLine;
constexpr Figure kLatentFigures[] = {{"used_latents", kAllLines, UsedLatents},
                                     {"information_nats", kAllLines, Information},
                                     {"latent_nll_spread_nats", kStepLine | kEpochLine, Spread}};

constexpr KeyDefault kCvfDefaults[] = {{"group.responses", "1"}, {"train.groups_per_step", "8"}};

}  // namespace

extern const Method cvf;
constinit const Method cvf = {.name = "cvf",
                              .defaults = kCvfDefaults,
                              .latents = true,
                              .label = LabelLatents,
                              .extents = LatentExtents,
                              .terms = kLatentTerms,
                              .losses = MakeLatentLosses,
                              .sums = LatentSumNames,
                              .figures = kLatentFigures};

}  // namespace plural::trainer::methods
