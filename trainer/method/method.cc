#include "trainer/method/method.h"

#include <algorithm>
#include <stdexcept>

namespace plural::trainer {
namespace {

// True for the terms that every line of metrics has.
bool IsCommon(std::string_view term) { return std::ranges::find(kTwoTerms, term) != std::end(kTwoTerms); }

// The terms besides the common ones, and the method's sums.
void AppendOwn(const Method& method, const MethodSettings& settings, std::vector<std::string>& names) {
  for (const std::string_view term : method.terms) {
    if (!IsCommon(term)) names.emplace_back(term);
  }
  if (method.sums == nullptr) return;
  for (std::string& name : method.sums(settings)) names.push_back(std::move(name));
}

}  // namespace

const Method& MethodNamed(std::string_view word) {
  for (const Method* method : Methods()) {
    if (word == method->name || (!word.empty() && word == method->other_name)) return *method;
  }
  throw std::logic_error("there is no method named " + std::string(word));
}

OwnValues OwnDefaults() {
  OwnValues values;
  for (const Method* method : Methods()) {
    for (const OwnKey& key : method->keys) values.emplace(key.name, key.otherwise);
  }
  return values;
}

std::int64_t CountUsed(const Method& method, std::int64_t found, const data::LabelSettings& settings) {
  if (method.responses == UsedResponses::kFirst) return 1;
  if (method.responses == UsedResponses::kAll || settings.responses == 0) return found;
  return settings.responses;
}

data::LabelledGroup Label(const Method& method, const data::Group& group, const data::LabelSettings& settings,
                          std::int64_t epoch) {
  const int found = static_cast<int>(group.responses.size());
  const int used = static_cast<int>(CountUsed(method, found, settings));
  data::RequireResponses(group, used, settings.selection == data::Selection::kAligned ? found : used);
  data::LabelledGroup labelled =
      method.label != nullptr ? method.label(group, used, settings, epoch)
                              : data::Positives(group, data::WithoutNumbers(used), settings.normalization);
  for (const auto* sequences : {&labelled.sequences, &labelled.recognition}) {
    for (const data::LabelledSequence& sequence : *sequences) {
      labelled.sequence_tokens +=
          static_cast<std::int64_t>(sequence.prefix->size() + sequence.response.size());
    }
  }
  return labelled;
}

Sums StepSums(const Method& method, const MethodSettings& settings) {
  std::vector<std::string> names = {"groups", "unpenalised_groups", "rows", "sequence_tokens",
                                    "recomputed_passes"};
  names.insert(names.end(), std::begin(kTwoTerms), std::end(kTwoTerms));
  AppendOwn(method, settings, names);
  return Sums(std::move(names));
}

Sums EpochSums(const Method& method, const MethodSettings& settings) {
  std::vector<std::string> names = {"groups", "unpenalised_groups", "loss"};
  AppendOwn(method, settings, names);
  return Sums(std::move(names));
}

Sums ValidationSums(const Method& method, const MethodSettings& settings) {
  std::vector<std::string> names = {"groups", "logprob_nats", "response_tokens"};
  names.insert(names.end(), std::begin(kTwoTerms), std::end(kTwoTerms));
  AppendOwn(method, settings, names);
  names.insert(names.end(), method.validation_sums.begin(), method.validation_sums.end());
  return Sums(std::move(names));
}

void AddStep(const Method& method, const Sums& step, Sums& epoch) {
  const double groups = step["groups"];
  epoch["loss"] += LossOf(method, step) * groups;
  for (const std::string& name : epoch.Names()) {
    if (name == "loss") continue;
    const bool is_term = std::ranges::find(method.terms, name) != method.terms.end();
    epoch[name] += is_term ? step[name] * groups : step[name];
  }
}

double LossOf(const Method& method, const Sums& sums) {
  double loss = 0.0;
  for (const std::string_view term : method.terms) loss += sums[term];
  return loss;
}

std::vector<NamedFigure> FiguresOf(const Method& method, const MethodSettings& settings, Lines line,
                                   const Sums& sums) {
  std::vector<NamedFigure> figures;
  for (const std::string_view term : method.terms) {
    if (IsCommon(term)) continue;
    figures.push_back({term, line == kStepLine ? sums[term] : sums[term] / sums["groups"]});
  }
  for (const Figure& figure : method.figures) {
    if ((figure.lines & line) == 0) continue;
    const std::optional<double> value =
        figure.value == nullptr ? sums[figure.name] / sums["groups"] : figure.value(sums, settings);
    if (value) figures.push_back({figure.name, *value});
  }
  return figures;
}

}  // namespace plural::trainer
