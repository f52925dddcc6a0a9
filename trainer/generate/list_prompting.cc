#include "trainer/generate/list_prompting.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "data/error.h"
#include "data/random.h"

namespace plural::trainer {
namespace {

constexpr std::size_t kFewestCharacters = 5;
constexpr int kAttempts = 3;  // a greedy one and two sampled ones
constexpr std::size_t kLongestLabel = 32;
constexpr std::string_view kSpace = " \t\r";

bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsLetter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

bool IsSpace(std::string_view text) { return text.find_first_not_of(" \t\r\n") == std::string_view::npos; }

std::size_t Skip(std::string_view text, std::size_t at, bool (*belongs)(char)) {
  while (at < text.size() && belongs(text[at])) ++at;
  return at;
}

std::size_t SkipSpace(std::string_view text, std::size_t at) {
  return std::min(text.find_first_not_of(kSpace, at), text.size());
}

// Bytes of the label that `line` starts with; 0: none. `line` does not start with space.
std::size_t LabelLength(std::string_view line) {
  for (const std::string_view bullet : {"-", "*", "+", "\u2022", "\u2013", "\u2014"}) {
    if (!line.starts_with(bullet)) continue;
    const bool alone =
        bullet.size() == line.size() || kSpace.find(line[bullet.size()]) != std::string_view::npos;
    if (alone) return bullet.size();
  }
  // [word] [(|#] number [.|)|:]... with one sign at least, so that "3 apples" and "1984 was" are no labels.
  std::size_t at = Skip(line, 0, IsLetter);
  const bool word = at > 0;
  at = SkipSpace(line, at);
  const std::size_t before = at;
  while (at < line.size() && (line[at] == '(' || line[at] == '#' || line[at] == '[')) ++at;
  const bool opened = at > before;
  const std::size_t number = at;
  at = Skip(line, at, IsDigit);
  if (at == number || at - number > 4) return 0;
  const std::size_t after = at;
  while (at < line.size() && (line[at] == ')' || line[at] == ']' || line[at] == '.' || line[at] == ':')) ++at;
  const bool closed = at > after;
  // "At 5." is a sentence; "Response 5:" is a label.
  if (word && (!closed || line[at - 1] != ':')) return 0;
  if (!closed && !opened) return 0;
  // "3.50 dollars" and "5:30 is late" go on directly.
  if (at < line.size() && IsDigit(line[at])) return 0;
  return at;
}

std::size_t Characters(std::string_view text) {
  return static_cast<std::size_t>(std::count_if(
      text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

// text[begin, end) without space around it.
ListItem Trimmed(std::string_view text, std::size_t begin, std::size_t end) {
  begin = std::min(SkipSpace(text, begin), end);
  while (end > begin && kSpace.find(text[end - 1]) != std::string_view::npos) --end;
  return {begin, end};
}

GeneratedResponse ResponseOf(const ListItem& item, const std::vector<data::Token>& tokens,
                             const std::vector<std::string>& token_texts, const std::string& text,
                             const GeneratedResponse& list) {
  GeneratedResponse response;
  response.text = text.substr(item.begin, item.end - item.begin);
  if (const auto span = TokensOfItem(token_texts, item)) {
    response.tokens.assign(tokens.begin() + static_cast<std::ptrdiff_t>(span->begin),
                           tokens.begin() + static_cast<std::ptrdiff_t>(span->end));
  }
  response.logprob = std::numeric_limits<double>::quiet_NaN();
  response.tail = list.possibility;  // how many the list was asked for
  response.finished = list.finished || text.find('\n', item.end) != std::string::npos;
  response.steps = list.steps;
  response.seconds = list.seconds;
  return response;
}

}  // namespace

std::vector<ListItem> SplitList(std::string_view text, bool first_is_item) {
  std::vector<ListItem> labelled, unlabelled;
  bool any_label = false;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    const std::size_t start = std::min(SkipSpace(text, begin), end);
    const std::size_t label = LabelLength(text.substr(start, end - start));
    const ListItem item = Trimmed(text, start + label, end);
    any_label |= label > 0;
    if (Characters(text.substr(item.begin, item.end - item.begin)) >= kFewestCharacters) {
      if (label > 0 || (begin == 0 && first_is_item)) labelled.push_back(item);
      unlabelled.push_back(item);
    }
    begin = end + 1;
  }
  return any_label ? labelled : unlabelled;
}

bool EndsWithLabel(std::string_view prompt) {
  prompt = prompt.substr(0, prompt.find_last_not_of(" \t\r\n") + 1);
  for (std::size_t begin = prompt.size() - std::min(prompt.size(), kLongestLabel); begin < prompt.size();
       ++begin) {
    const bool word_start = begin == 0 || IsSpace(prompt.substr(begin - 1, 1));
    if (word_start && LabelLength(prompt.substr(begin)) == prompt.size() - begin) return true;
  }
  return false;
}

std::optional<TokenSpan> TokensOfItem(const std::vector<std::string>& token_texts, const ListItem& item) {
  std::optional<TokenSpan> span;
  std::size_t at = 0;  // bytes before token t
  for (std::size_t t = 0; t < token_texts.size() && at < item.end; ++t) {
    const std::string_view token = token_texts[t];
    if (at + token.size() > item.begin) {
      const std::string_view before = token.substr(0, item.begin - std::min(at, item.begin));
      const std::string_view after = token.substr(std::min(token.size(), item.end - at));
      if (!IsSpace(before) || !IsSpace(after)) return std::nullopt;
      if (!span) span = TokenSpan{t, t};
      span->end = t + 1;
    }
    at += token.size();
  }
  return span;
}

bool AsksForCount(const data::CorpusInfo& info) {
  const nlohmann::json spec = nlohmann::json::parse(info.template_json, nullptr, false);
  return info.possibilities > 0 && spec.is_object() && spec.contains("prompt_with_count");
}

std::vector<GeneratedPrompt> GenerateLists(const Decoder& model, const data::Corpus& corpus,
                                           const std::vector<data::Group>& prompts,
                                           const GenerateSettings& settings, const StopSignal* stop) {
  const bool counted = AsksForCount(corpus.Info());
  if (counted && settings.responses > corpus.Info().possibilities) {
    throw data::DataError(corpus.Path().string() + ": its prompts ask for lists of 1 to " +
                          std::to_string(corpus.Info().possibilities) + " responses, --responses is " +
                          std::to_string(settings.responses) + "; prepare it with --possibilities " +
                          std::to_string(settings.responses));
  }
  std::vector<GeneratedPrompt> results(prompts.size());
  std::vector<std::size_t> pending(prompts.size());
  for (std::size_t p = 0; p < pending.size(); ++p) pending[p] = p;

  for (int attempt = 0; attempt < kAttempts && !pending.empty(); ++attempt) {
    GenerateSettings once = settings;
    once.responses = 1;
    if (counted) {  // the corpus's number is how many are asked for
      once.policy = PossibilityPolicy::kGiven;
      once.possibilities = {static_cast<int>(settings.responses)};
    }
    once.sampling = {.temperature = attempt == 0 ? 0.0 : 1.0};
    once.seed = data::MixKey(settings.seed, data::Purpose::kSampling, static_cast<std::uint64_t>(attempt));
    std::vector<data::Group> asked;
    for (const std::size_t p : pending) asked.push_back(prompts[p]);
    const std::vector<GeneratedPrompt> lists = Generate(model, asked, once, kDefaultRows, stop);
    if (lists.empty()) return {};

    std::vector<std::size_t> short_ones;
    for (std::size_t i = 0; i < pending.size(); ++i) {
      const data::Group& prompt = asked[i];
      const GeneratedResponse& list = lists[i].responses.front();
      GeneratedPrompt& result = results[pending[i]];
      result.decode_steps += lists[i].decode_steps;
      result.token_forwards += lists[i].token_forwards;
      result.seconds += lists[i].seconds;

      std::vector<std::string> token_texts;
      std::string text;
      for (const data::Token token : list.tokens) text += token_texts.emplace_back(corpus.TokenBytes(token));
      const auto tail = counted ? static_cast<std::size_t>(settings.responses) : 0;
      const std::string asked_text = corpus.Decode(prompt.prompt_tokens) + corpus.Decode(prompt.tails[tail]);
      std::vector<ListItem> items = SplitList(text, EndsWithLabel(asked_text));
      items.resize(std::min(items.size(), static_cast<std::size_t>(settings.responses)));
      if (attempt == 0 || items.size() > result.responses.size()) {
        result.responses.clear();
        for (const ListItem& item : items) {
          result.responses.push_back(ResponseOf(item, list.tokens, token_texts, text, list));
          result.responses.back().index = static_cast<std::int64_t>(result.responses.size()) - 1;
        }
      }
      result.short_by = settings.responses - static_cast<std::int64_t>(result.responses.size());
      if (*result.short_by > 0) short_ones.push_back(pending[i]);
    }
    pending = std::move(short_ones);
  }
  return results;
}

}  // namespace plural::trainer
