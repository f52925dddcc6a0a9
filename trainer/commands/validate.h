// `plural validate`: is this recipe right, and what does it say in full?
//
// Owns: the command. Does not own: reading recipes (recipe/recipe.h). Thread rule: main thread.
#pragma once

#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace plural::trainer {

struct ValidateOptions {
  std::string recipe;
  std::vector<std::string> overrides;  // "a.b=c"
  bool keys = false;                   // print the table of docs/recipes.md instead
  bool run_folder = false;             // print the folder of the run instead
};

// The two positional arguments of every command that takes a recipe.
void AddRecipeArguments(CLI::App& command, std::string& recipe, std::vector<std::string>& overrides);

void AddValidateOptions(CLI::App& command, ValidateOptions& options);

// Prints the resolved recipe, every default explicit and every value with its origin, as YAML that is a
// recipe again. Errors: those of LoadRecipe.
int RunValidate(const ValidateOptions& options);

}  // namespace plural::trainer
