#include "trainer/commands/help.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <sstream>
#include <vector>

namespace plural::trainer {
namespace {

constexpr std::size_t kColumns = 100;

// clang-format off
constexpr auto kCommands = std::to_array<CommandHelp>({
    {"Data", "prepare", "Turns text into a corpus: tokens, masks and prompts with possibility numbers.",
     "prepare my.jsonl --format dialogue --tokenizer MODEL -o my.h5", false, true},
    {"Data", "build-responses", "Has a model list several different replies to each prompt.",
     "build-responses prompts.jsonl --model MODEL -o replies.jsonl", false, true},
    {"Data", "inspect", "Shows what a corpus, a checkpoint or an adapter holds.",
     "inspect my.h5 --examples 2"},
    {"Training", "validate", "Checks a recipe and prints it in full, with the origin of each value.",
     "validate RECIPE.yaml optimizer.lr=1e-4"},
    {"Training", "dry-run", "Says what a recipe would do, need and write, before anything is computed.",
     "dry-run RECIPE.yaml --ranks 4"},
    {"Training", "train", "Trains as a recipe says, or goes on where the run was stopped.",
     "train RECIPE.yaml train.epochs=3", true},
    {"Training", "watch", "Shows runs while they train and after: progress, losses, validation, state.",
     "watch runs", false, true},
    {"Training", "verify", "Checks whether a run's checkpoints, metrics and result are whole.",
     "verify runs/mine"},
    {"Training", "track", "Sends a run's figures to TensorBoard, Weights & Biases or trackio.",
     "track runs/mine --tensorboard", false, true},
    {"Training", "export", "Merges an adapter into the weights of its model.",
     "export --model MODEL --adapter runs/mine/adapter -o merged"},
    {"Answers", "ask", "Asks a model and prints its answers, each behind its possibility number.",
     "ask --model MODEL --adapter runs/mine/adapter \"Any plans for tonight?\"", false, true},
    {"Answers", "serve", "An OpenAI-compatible endpoint on this machine, for tools that ask one.",
     "serve --model MODEL --adapter runs/mine/adapter --port 8000", false, true},
    {"Answers", "generate", "Gives responses to the prompts of a corpus.",
     "generate --model MODEL --adapter ADAPTER --corpus my.h5 -o answers.jsonl", true},
    {"Answers", "score", "Gives the log-probability of each token of given responses.",
     "score --model MODEL --input sequences.jsonl -o scores.jsonl", true},
    {"Answers", "rate", "Rates how well given responses fit, as a model judges.",
     "rate --model MODEL --rating-corpus r.h5 --input answers.jsonl -o rated.jsonl", true},
    {"Answers", "postprocess", "Cleans the texts of responses step by step.",
     "postprocess answers.jsonl -o cleaned.jsonl", false, true},
    {"Figures", "evaluate", "Computes exact figures of a model on a corpus; nothing is sampled.",
     "evaluate --model MODEL --adapter ADAPTER --corpus test.h5", true},
    {"Figures", "metrics", "Measures diversity, coverage, coherence and cost of generated responses.",
     "metrics answers.jsonl -o figures.json", false, true},
    {"Figures", "persona", "Holds conversations with a model and measures how varied its personas are.",
     "persona --model MODEL --questions questions.jsonl -o talks.jsonl", false, true},
    {"Figures", "report", "Makes one HTML page of runs, a sweep, answers and figures.",
     "report runs/mine --responses answers.jsonl -o report.html", false, true},
    {"Figures", "plot", "Draws one figure of them as PNG, PDF or SVG.",
     "plot validation.perplexity runs/mine -o perplexity.pdf", false, true},
    {"Figures", "sweep", "Trains, measures and compares settings with several seeds.",
     "sweep run SWEEP.yaml", false, true},
    {"This machine", "launch", "Starts a command on several ranks: mpirun with what it needs.",
     "launch -np 4 train RECIPE.yaml", false, true},
    {"This machine", "doctor", "Reports what is here, what is missing and how to get it.", "doctor", true},
});
// clang-format on

// A type as a word: "N" for whole numbers, the words themselves where only some are allowed.
std::string TypeWord(const CLI::Option& option) {
  const std::string type = option.get_type_name();  // "INT:INT in [0 - 9]", "TEXT:{a,b}", "A:B" as set by us
  const std::size_t brace = type.find('{');
  if (brace != std::string::npos && type.back() == '}') {
    std::string words = type.substr(brace + 1, type.size() - brace - 2);
    std::replace(words.begin(), words.end(), ',', '|');
    return words;
  }
  const auto begins = [&](const char* word) { return type.rfind(word, 0) == 0; };
  if (begins("INT") || begins("UINT")) return "N";
  if (begins("FLOAT")) return "X";
  return begins("TEXT") ? "TEXT" : type;
}

// What stands for an argument without a name: its own word, or the form of it.
std::string Placeholder(const CLI::Option& argument) {
  const std::string form = TypeWord(argument);
  return form.empty() || form == "TEXT" ? argument.get_name(true) : form;
}

class Formatter : public CLI::Formatter {
 public:
  std::string make_help(const CLI::App* app, std::string /*name*/,
                        CLI::AppFormatMode /*mode*/) const override {
    const CommandHelp* command = FindCommand(app->get_name());
    if (command == nullptr) return CommandsText();
    std::vector<const CLI::Option*> arguments, options;
    for (const CLI::Option* option : app->get_options()) {
      if (option->get_group().empty()) continue;
      (option->get_positional() ? arguments : options).push_back(option);
    }
    std::string text = "Usage: plural " + app->get_name();
    for (const CLI::Option* argument : arguments) {
      const std::string name = Placeholder(*argument);
      text += argument->get_expected_max() > 1 ? " [" + name + " ...]" : " " + name;
    }
    text += options.empty() ? "\n\n" : " [OPTIONS]\n\n";
    text += Wrapped(std::string(command->what), 0, kColumns);
    if (!arguments.empty()) text += "\n";
    for (const CLI::Option* argument : arguments) text += Row(Placeholder(*argument), Meaning(*argument));
    if (!options.empty()) text += "\nOptions:\n";
    for (const CLI::Option* option : options) {
      std::string name = option->get_name(false, true);  // "-o,--output"
      if (const std::size_t comma = name.find(','); comma != std::string::npos) name.insert(comma + 1, " ");
      if (option->get_type_size() != 0) name += " " + TypeWord(*option);
      text += Row(name, Meaning(*option));
    }
    text += "\nExample: plural " + std::string(command->example) + "\n";
    if (command->ranks) {
      text += "On several ranks: plural launch -np 4 " + std::string(command->word) + " ...\n";
    }
    if (const std::string footer = app->get_footer(); !footer.empty()) {
      text += "\n" + Wrapped(footer, 0, kColumns);
    }
    return text;
  }

 private:
  static std::string Meaning(const CLI::Option& option) {
    std::string text = option.get_description();
    if (option.get_required() && !option.get_positional()) text += " (needed)";
    const std::string& otherwise = option.get_default_str();
    if (!otherwise.empty() && option.get_type_size() != 0) text += " (default: " + otherwise + ")";
    return text;
  }
  static std::string Row(const std::string& name, const std::string& meaning) {
    constexpr std::size_t kIndent = 28;
    const std::string lines = Wrapped(meaning, kIndent, kColumns);
    const std::string begin = "  " + name;
    if (begin.size() + 2 > kIndent) return begin + "\n" + lines;
    return begin + lines.substr(begin.size());
  }
};

}  // namespace

std::span<const CommandHelp> Commands() { return kCommands; }

const CommandHelp* FindCommand(std::string_view word) {
  const auto found = std::ranges::find(kCommands, word, &CommandHelp::word);
  return found == kCommands.end() ? nullptr : &*found;
}

std::string CommandsText() {
  std::string text =
      "plural trains language models to give many different good answers.\n\n"
      "Usage: plural COMMAND ...     plural COMMAND --help explains one     plural --version\n";
  std::string_view group;
  for (const CommandHelp& command : kCommands) {
    if (command.group != group) text += "\n" + std::string(command.group) + "\n";
    group = command.group;
    std::string word = "  " + std::string(command.word);
    word.resize(15, ' ');
    text += word + std::string(command.what) + "\n" + std::string(15, ' ') + "plural " +
            std::string(command.example) + "\n";
  }
  return text +
         "\ntrain, generate, score, rate, evaluate and doctor share their work over ranks.\n"
         "docs/running.md explains commands, exit codes and the run folder.\n";
}

std::shared_ptr<CLI::FormatterBase> HelpFormatter() { return std::make_shared<Formatter>(); }

std::string Wrapped(const std::string& text, std::size_t indent, std::size_t columns) {
  std::string out, line;
  const auto end_line = [&] {
    out += std::string(indent, ' ') + line + "\n";
    line.clear();
  };
  std::istringstream words(text);
  for (std::string word; words >> word;) {
    if (!line.empty() && indent + line.size() + 1 + word.size() > columns) end_line();
    line += (line.empty() ? "" : " ") + word;
  }
  if (!line.empty() || out.empty()) end_line();
  return out;
}

}  // namespace plural::trainer
