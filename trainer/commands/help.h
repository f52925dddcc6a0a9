// The help texts: all commands in groups, and the options of one.
//
// Owns: which commands there are, also those of the Python side, what they are for, an example of each; the
// form of help texts: at most 100 columns, types as words. Does not own: options (the commands' files).
// Thread rule: pure functions.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace CLI {
class FormatterBase;
}

namespace plural::trainer {

struct CommandHelp {
  std::string_view group, word;
  std::string_view what;     // one sentence
  std::string_view example;  // behind "plural "
  bool ranks = false;        // shares its work over ranks
  bool script = false;       // of launch/plural: not in this program
};

std::span<const CommandHelp> Commands();
// Null for an unknown word.
const CommandHelp* FindCommand(std::string_view word);

// The whole of `plural --help`.
std::string CommandsText();
// Formats the help of one command.
std::shared_ptr<CLI::FormatterBase> HelpFormatter();

// `text` in lines of at most `columns`, each behind `indent` spaces; ends with a line end.
std::string Wrapped(const std::string& text, std::size_t indent, std::size_t columns);

}  // namespace plural::trainer
