#include "trainer/commands/show_group.h"

#include <unistd.h>

#include <cstdlib>
#include <iostream>

#include "trainer/base/printable.h"

namespace plural::trainer {
namespace {

constexpr std::size_t kShownResponses = 4;
constexpr std::size_t kShownTails = 3;
constexpr std::size_t kShownBytes = 600;

// The middle of a long text left out, cut between characters of UTF-8.
std::string Shortened(const std::string& text) {
  if (text.size() <= kShownBytes) return text;
  const auto continues = [&](std::size_t at) {
    return (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80;
  };
  std::size_t head = kShownBytes / 2;
  std::size_t tail = text.size() - kShownBytes / 2;
  while (head > 0 && continues(head)) --head;
  while (tail < text.size() && continues(tail)) ++tail;
  return text.substr(0, head) + " ... " + text.substr(tail);
}

}  // namespace

std::string MarkPenalised(const data::Corpus& corpus, const data::Response& response, data::MaskMode mode,
                          bool colour) {
  const std::string open = colour ? "\033[31;4m" : "[[";
  const std::string close = colour ? "\033[0m" : "]]";
  std::string text;
  bool marking = false;
  for (std::size_t t = 0; t < response.tokens.size(); ++t) {
    const bool penalised = response.Penalised(t, mode);
    if (penalised != marking) text += penalised ? open : close;
    marking = penalised;
    text += Printable(corpus.TokenBytes(response.tokens[t]));
  }
  return marking ? text + close : text;
}

void ShowGroup(const data::Corpus& corpus, const data::Group& group, data::MaskMode mode) {
  const bool colour = isatty(STDOUT_FILENO) == 1 && std::getenv("NO_COLOR") == nullptr;
  const bool negatives = group.Possibilities() > 0;  // without numbers nothing is ever penalised
  std::cout << "\ngroup " << group.index << ", id " << Printable(group.id) << "\n";
  std::cout << "  prompt      " << Shortened(Printable(corpus.Decode(group.prompt_tokens))) << "\n";
  for (std::size_t k = 0; k < group.tails.size() && k < kShownTails; ++k) {
    if (group.tails[k].empty()) continue;
    std::cout << "  tail " << k << "      " << Shortened(Printable(corpus.Decode(group.tails[k]))) << "\n";
  }
  if (group.tails.size() > kShownTails) {
    std::cout << "  ... and " << group.tails.size() - kShownTails << " tails more\n";
  }
  for (std::size_t r = 0; r < group.responses.size() && r < kShownResponses; ++r) {
    const data::Response& response = group.responses[r];
    std::cout << "  response " << r << "  "
              << (negatives ? MarkPenalised(corpus, response, mode, colour)
                            : Printable(corpus.Decode(response.tokens)));
    if (response.weight != 1.0) std::cout << "  (weight " << response.weight << ")";
    std::cout << "\n";
  }
  if (group.responses.size() > kShownResponses) {
    std::cout << "  ... and " << group.responses.size() - kShownResponses << " responses more\n";
  }
}

}  // namespace plural::trainer
