#include "trainer/commands/show_alignment.h"

#include <algorithm>
#include <iomanip>
#include <iostream>
#include <sstream>

#include "trainer/base/printable.h"
#include "trainer/commands/show_group.h"

namespace plural::trainer {
namespace {

constexpr std::size_t kExamples = 3;

double Share(std::int64_t part, std::int64_t whole) {
  return whole > 0 ? static_cast<double>(part) / static_cast<double>(whole) : 0.0;
}

std::string Percent(std::int64_t part, std::int64_t whole) {
  std::ostringstream text;
  text << std::fixed << std::setprecision(1) << 100.0 * Share(part, whole) << "%";
  return whole > 0 ? text.str() : "-";
}

}  // namespace

AlignmentFigures::AlignmentFigures(const data::Corpus& corpus, int responses)
    : corpus_(corpus),
      responses_(responses),
      numbers_(static_cast<std::size_t>(corpus.Info().alignment.possibilities)) {}

void AlignmentFigures::Add(const data::Group& group) {
  for (const data::Response& response : group.responses) {
    ++all_responses_;
    const auto best = std::max_element(response.affinity.begin(), response.affinity.end());
    ++numbers_[static_cast<std::size_t>(best - response.affinity.begin())].nearest;
    for (std::size_t number = 0; number < numbers_.size(); ++number) AddExample(group, response, number);
  }
  AddUsage(group, data::Selection::kFirst);
  AddUsage(group, data::Selection::kAligned);
}

// Only of its best number is a response an example.
void AlignmentFigures::AddExample(const data::Group& group, const data::Response& response,
                                  std::size_t number) {
  const float affinity = response.affinity[number];
  std::vector<Example>& examples = numbers_[number].examples;
  if (affinity < std::ranges::max(response.affinity)) return;
  if (examples.size() == kExamples && affinity <= examples.back().affinity) return;
  Example example{.affinity = affinity, .group = group.id, .text = corpus_.Decode(response.tokens)};
  if (std::ranges::any_of(examples, [&](const Example& other) { return other.text == example.text; })) return;
  const auto place =
      std::ranges::find_if(examples, [&](const Example& other) { return other.affinity < example.affinity; });
  examples.insert(place, std::move(example));
  if (examples.size() > kExamples) examples.pop_back();
}

void AlignmentFigures::AddUsage(const data::Group& group, data::Selection selection) {
  data::LabelSettings settings;
  settings.possibilities = static_cast<int>(numbers_.size());
  settings.assignment = data::Assignment::kAligned;
  settings.selection = selection;
  const int count =
      std::min({responses_, static_cast<int>(group.responses.size()), static_cast<int>(numbers_.size())});
  for (const data::NumberedResponse& numbered : data::AssignPossibilities(group, settings, 0, count)) {
    const std::vector<float>& affinity =
        group.responses[static_cast<std::size_t>(numbered.response)].affinity;
    const auto number = static_cast<std::size_t>(numbered.possibility - 1);
    Usage& usage = selection == data::Selection::kFirst ? numbers_[number].first : numbers_[number].best;
    ++usage.used;
    if (affinity[number] >= std::ranges::max(affinity)) ++usage.suited;
  }
}

std::string AlignmentFigures::Meaning(std::size_t number) const {
  const data::AlignmentInfo& alignment = corpus_.Info().alignment;
  return alignment.kinds.empty() ? "" : alignment.kinds[number];
}

void AlignmentFigures::Print() const {
  const data::AlignmentInfo& alignment = corpus_.Info().alignment;
  std::cout << "\n  possibility numbers 1 to " << numbers_.size() << " stand for "
            << (alignment.source == "kinds"
                    ? "the author's kinds"
                    : "clusters of sentence vectors, encoder " + Printable(alignment.encoder) + ", sha256 " +
                          alignment.encoder_sha256)
            << "\n";
  const std::string count = std::to_string(responses_);
  std::cout << "  number   nearest   share" << std::setw(10) << "first " + count << "  suited"
            << std::setw(10) << "best " + count << "  suited\n";
  for (std::size_t k = 0; k < numbers_.size(); ++k) {
    const Number& number = numbers_[k];
    std::cout << "  " << std::setw(6) << k + 1 << std::setw(10) << number.nearest << std::setw(8)
              << Percent(number.nearest, all_responses_) << std::setw(10) << number.first.used << std::setw(8)
              << Percent(number.first.suited, number.first.used) << std::setw(10) << number.best.used
              << std::setw(8) << Percent(number.best.suited, number.best.used) << "  "
              << Printable(Meaning(k)) << "\n";
    for (const Example& example : number.examples) {
      std::ostringstream affinity;
      affinity << std::fixed << std::setprecision(2) << example.affinity;
      std::cout << "         " << affinity.str() << "  " << Printable(example.text) << "\n";
    }
  }
  std::cout
      << "  nearest: responses that no other number suits better. first, best " << count
      << ": how many get the number when the\n"
      << "  first " << count << " responses of a group are used (group.selection first), or the " << count
      << " that suit best (aligned); suited: of\n"
      << "  these, the share that no other number suits better. Below each number, the responses nearest to "
         "it and\n  their affinity.\n";
}

nlohmann::ordered_json AlignmentFigures::Json() const {
  using Json = nlohmann::ordered_json;
  const data::AlignmentInfo& alignment = corpus_.Info().alignment;
  const auto text_or_null = [](const std::string& text) { return text.empty() ? Json() : Json(text); };
  const auto usage = [](const Usage& used, int responses) {
    return Json{{"responses", responses}, {"used", used.used}, {"suited", used.suited}};
  };
  Json out = {{"possibilities", alignment.possibilities},
              {"source", alignment.source},
              {"encoder", text_or_null(alignment.encoder)},
              {"encoder_sha256", text_or_null(alignment.encoder_sha256)},
              {"responses", all_responses_},
              {"numbers", Json::array()}};
  for (std::size_t k = 0; k < numbers_.size(); ++k) {
    const Number& number = numbers_[k];
    Json entry = {{"possibility", k + 1},
                  {"kind", text_or_null(Meaning(k))},
                  {"nearest", number.nearest},
                  {"nearest_share", Share(number.nearest, all_responses_)},
                  {"first", usage(number.first, responses_)},
                  {"best", usage(number.best, responses_)},
                  {"examples", Json::array()}};
    for (const Example& example : number.examples) {
      entry["examples"].push_back(
          {{"affinity", example.affinity}, {"group", example.group}, {"text", example.text}});
    }
    out["numbers"].push_back(std::move(entry));
  }
  return out;
}

}  // namespace plural::trainer
