#include "trainer/commands/inspect.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cstdint>
#include <iomanip>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>
#include <string_view>
#include <utility>
#include <vector>

#include "data/corpus.h"
#include "data/error.h"
#include "data/tree.h"
#include "trainer/base/error.h"
#include "trainer/base/printable.h"
#include "trainer/commands/show_alignment.h"
#include "trainer/commands/show_group.h"
#include "trainer/method/method.h"

namespace plural::trainer {
namespace {

struct GroupRange {
  std::int64_t begin = 0;
  std::int64_t end = 0;
};

GroupRange ParseRange(const std::string& text, std::int64_t groups) {
  const auto number = [](std::string_view digits, std::int64_t if_empty) -> std::optional<std::int64_t> {
    if (digits.empty()) return if_empty;
    std::int64_t value = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    if (error != std::errc() || end != digits.data() + digits.size()) return std::nullopt;
    return value;
  };
  if (text.empty()) return {0, groups};
  const std::string_view view = text;
  const std::size_t colon = view.find(':');
  const auto begin = number(view.substr(0, colon), 0);
  const auto end = colon == std::string_view::npos ? std::nullopt : number(view.substr(colon + 1), groups);
  if (!begin || !end || *begin < 0 || *begin >= *end || *end > groups) {
    throw ExitError(ExitCode::kUsage, "--groups is '" + text + "', A:B with 0 <= A < B <= " +
                                          std::to_string(groups) + " is needed (B is not included)");
  }
  return {*begin, *end};
}

data::MaskMode ParseMask(const std::string& name) {
  if (name == "content_first") return data::MaskMode::kContentFirst;
  if (name == "all_first") return data::MaskMode::kAllFirst;
  if (name == "repo_compat") return data::MaskMode::kRepoCompat;
  throw ExitError(ExitCode::kUsage,
                  "--mask is '" + name + "'; content_first, all_first and repo_compat are allowed");
}

std::string GroupJson(const data::Group& group, data::MaskMode mode) {
  nlohmann::ordered_json json;
  json["id"] = group.id;
  json["prompt_tokens"] = group.prompt_tokens;
  json["tails"] = nlohmann::ordered_json::object();
  for (std::size_t k = 0; k < group.tails.size(); ++k) json["tails"][std::to_string(k)] = group.tails[k];
  json["responses"] = nlohmann::ordered_json::array();
  for (const data::Response& response : group.responses) {
    std::vector<int> penalised;
    for (std::size_t t = 0; t < response.tokens.size(); ++t) {
      penalised.push_back(response.Penalised(t, mode) ? 1 : 0);
    }
    json["responses"].push_back(
        {{"tokens", response.tokens}, {"weight", response.weight}, {"unlikelihood_mask", penalised}});
    if (!response.affinity.empty()) json["responses"].back()["affinity"] = response.affinity;
  }
  // An id may hold any bytes; JSON may not.
  return json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

// What the token tree saves for methods that make the same trees, over the groups that can serve them.
struct Sharing {
  std::string names;
  const Method* method = nullptr;
  data::LabelSettings settings;
  std::int64_t groups = 0;
  std::int64_t sequence_tokens = 0;  // plain layout: every sequence is a row of its own
  std::int64_t rows = 0;             // tree layout
  std::int64_t refused = 0;
  std::string first_refusal;

  void Add(const data::Group& group) {
    try {
      const data::LabelledGroup labelled = Label(*method, group, settings, 0);
      for (const auto* sequences : {&labelled.sequences, &labelled.recognition}) {
        if (!sequences->empty()) rows += data::BuildTree(*sequences).Rows();
      }
      sequence_tokens += labelled.sequence_tokens;
      ++groups;
    } catch (const data::DataError& error) {
      if (refused++ == 0) first_refusal = error.what();
    }
  }
};

// The methods that the corpus is for.
std::vector<Sharing> MethodsOf(const data::CorpusInfo& info) {
  std::vector<Sharing> sharings;
  for (const Method* method : Methods()) {
    if (method->numbers && info.possibilities == 0) continue;
    if (method->target_sets && info.source_format != "targets") continue;
    const auto uses_one = [](const Method& of) { return of.responses == UsedResponses::kFirst; };
    const auto same = std::ranges::find_if(sharings, [&](const Sharing& other) {
      return other.method->label == method->label && uses_one(*other.method) == uses_one(*method);
    });
    if (same != sharings.end()) {
      same->names.append(", ").append(method->name);
    } else {
      sharings.push_back({.names = std::string(method->name),
                          .method = method,
                          .settings = {.responses = 0, .possibilities = info.possibilities},
                          .first_refusal = {}});
    }
  }
  return sharings;
}

// The recipe's default number of responses, or what the group has.
int NumberedResponses(const data::Group& group) {
  return std::min({4, static_cast<int>(group.responses.size()), group.Possibilities()});
}

void PrintSpread(const char* what, std::vector<std::int64_t> values) {
  if (values.empty()) return;
  std::sort(values.begin(), values.end());
  // Nearest rank: the smallest value that at least `percent` of all values do not exceed.
  const auto quantile = [&](std::size_t percent) { return values[(percent * values.size() + 99) / 100 - 1]; };
  std::int64_t total = 0;
  for (const std::int64_t value : values) total += value;
  std::cout << "  " << std::left << std::setw(22) << what << std::right << std::setw(9) << values.front()
            << std::setw(9) << quantile(50) << std::setw(9) << quantile(95) << std::setw(9) << values.back()
            << std::setw(13) << total << "\n";
}

void PrintHead(const data::Corpus& corpus) {
  const data::CorpusInfo& info = corpus.Info();
  const auto line = [](const char* what, const auto&... value) {
    std::cout << "  " << std::left << std::setw(22) << what << std::right;
    (std::cout << ... << value) << "\n";
  };
  std::cout << corpus.Path().string() << "\n";
  line("format", Printable(info.source_format), ", template ", Printable(info.template_name));
  line("tokenizer", Printable(info.tokenizer_name), ", ", info.vocab_size, " ids, sha256 ",
       info.tokenizer_sha256);
  line("sha256",
       info.sha256.empty() ? "no sidecar, not checked" : info.sha256 + " (agrees with the sidecar)");
  line("groups", info.groups);
  line("responses", info.responses);
  line("possibility numbers", info.possibilities);
  const data::Corpus::Longest longest = corpus.LongestSequence();
  line("longest sequence", longest.tokens, " tokens (group ", longest.group, ")");
}

void PrintLengths(const data::Corpus& corpus, const GroupRange& range) {
  std::vector<std::int64_t> prompts, tails, responses, counts;
  for (std::int64_t g = range.begin; g < range.end; ++g) {
    const data::Corpus::GroupLengths lengths = corpus.Lengths(g);
    prompts.push_back(lengths.prompt);
    tails.push_back(lengths.longest_tail);
    counts.push_back(static_cast<std::int64_t>(lengths.responses.size()));
    responses.insert(responses.end(), lengths.responses.begin(), lengths.responses.end());
  }
  const std::string title = "groups " + std::to_string(range.begin) + ":" + std::to_string(range.end);
  std::cout << "\n  " << std::left << std::setw(22) << title << std::right;
  for (const char* column : {"min", "median", "p95", "max"}) std::cout << std::setw(9) << column;
  std::cout << std::setw(13) << "total"
            << "\n";
  PrintSpread("prompt tokens", std::move(prompts));
  PrintSpread("longest tail, tokens", std::move(tails));
  PrintSpread("response tokens", std::move(responses));
  PrintSpread("responses of a group", std::move(counts));
}

void PrintSharing(const std::vector<Sharing>& methods) {
  std::cout << "\n  method                    groups  sequence tokens   tree rows  shared\n";
  for (const Sharing& method : methods) {
    std::cout << "  " << std::left << std::setw(22) << method.names << std::right << std::setw(10)
              << method.groups;
    if (method.groups > 0) {
      std::ostringstream ratio;
      ratio << std::fixed << std::setprecision(2)
            << static_cast<double>(method.sequence_tokens) / static_cast<double>(method.rows) << "x";
      std::cout << std::setw(17) << method.sequence_tokens << std::setw(12) << method.rows << std::setw(8)
                << ratio.str();
    }
    std::cout << "\n";
    if (method.refused > 0) {
      std::cout << "    " << method.refused
                << " groups cannot serve it, the first: " << Printable(method.first_refusal) << "\n";
    }
  }
}

AlignmentFigures FiguresOf(data::Corpus& corpus, const GroupRange& range, const InspectOptions& options) {
  AlignmentFigures figures(corpus, options.responses);
  for (std::int64_t g = range.begin; g < range.end; ++g) figures.Add(corpus.Read(g));
  return figures;
}

void ShowAlignment(data::Corpus& corpus, const GroupRange& range, const InspectOptions& options) {
  if (corpus.Info().alignment.possibilities == 0) {
    throw ExitError(ExitCode::kBadData,
                    corpus.Path().string() +
                        ": does not say what its possibility numbers stand for; prepare it "
                        "with --align M or --align kinds");
  }
  const AlignmentFigures figures = FiguresOf(corpus, range, options);
  if (options.json) {
    // A text may hold any bytes; JSON may not.
    std::cout << figures.Json().dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace)
              << "\n";
  } else {
    figures.Print();
  }
}

void Summarise(data::Corpus& corpus, const GroupRange& range, data::MaskMode mode,
               const InspectOptions& options) {
  PrintHead(corpus);
  PrintLengths(corpus, range);

  std::vector<Sharing> methods = MethodsOf(corpus.Info());
  std::int64_t tokens = 0, penalised = 0;
  for (std::int64_t g = range.begin; g < range.end; ++g) {
    const data::Group group = corpus.Read(g);
    for (const data::Response& response : group.responses) {
      tokens += static_cast<std::int64_t>(response.tokens.size());
      for (std::size_t t = 0; t < response.tokens.size(); ++t) penalised += response.Penalised(t, mode);
    }
    if (group.responses.empty()) continue;  // a prompt to generate from
    for (Sharing& method : methods) {
      if (method.method->numbers) method.settings.responses = NumberedResponses(group);
      method.Add(group);
    }
  }
  if (tokens > 0) {
    PrintSharing(methods);
    if (corpus.Info().possibilities > 0) {
      std::cout << "\n  penalised in a negative (" << options.mask << "): " << penalised << " of " << tokens
                << " response tokens\n";
    }
  }
  if (corpus.Info().alignment.possibilities > 0) FiguresOf(corpus, range, options).Print();
  const std::int64_t shown = std::min<std::int64_t>(options.examples, range.end - range.begin);
  for (std::int64_t g = range.begin; g < range.begin + shown; ++g) ShowGroup(corpus, corpus.Read(g), mode);
}

}  // namespace

void AddInspectOptions(CLI::App& command, InspectOptions& options) {
  command.add_option("PATH", options.path, "corpus file (.h5), or folder of a checkpoint or an adapter")
      ->required();
  command.add_flag("--json", options.json, "corpus: print one JSON object per group");
  command.add_option("--groups", options.groups, "corpus: only groups A to B, B not included, from 0")
      ->type_name("A:B");
  command
      .add_option("--mask", options.mask,
                  "corpus: whose penalised words are shown: content_first, all_first or repo_compat")
      ->capture_default_str();
  command.add_option("--examples", options.examples, "corpus: groups to print decoded")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  command.add_flag("--alignment", options.alignment,
                   "corpus: only what its possibility numbers stand for; with --json as one object");
  command
      .add_option("--responses", options.responses,
                  "corpus: responses of a group that get numbers in those figures, as group.responses")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
}

int RunInspect(const InspectOptions& options) {
  if (std::filesystem::is_directory(options.path)) {
    InspectFolder(options.path);
  } else {
    const data::MaskMode mode = ParseMask(options.mask);
    data::Corpus corpus(options.path);
    const GroupRange range = ParseRange(options.groups, corpus.Info().groups);
    if (options.alignment) {
      ShowAlignment(corpus, range, options);
    } else if (options.json) {
      for (std::int64_t g = range.begin; g < range.end; ++g) {
        std::cout << GroupJson(corpus.Read(g), mode) << "\n";
      }
    } else {
      Summarise(corpus, range, mode, options);
    }
  }
  std::cout.flush();
  if (!std::cout)
    throw ExitError(ExitCode::kCannotCreate, "standard output: cannot be written to; is it full?");
  return 0;
}

}  // namespace plural::trainer
