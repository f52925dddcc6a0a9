#include "trainer/commands/validate.h"

#include <CLI/CLI.hpp>
#include <iostream>

#include "trainer/base/error.h"
#include "trainer/recipe/recipe.h"
#include "trainer/recipe/schema.h"

namespace plural::trainer {

void AddRecipeArguments(CLI::App& command, std::string& recipe, std::vector<std::string>& overrides) {
  command.add_option("RECIPE", recipe, "The recipe, a YAML file; docs/recipes.md lists its keys");
  command.add_option("OVERRIDES", overrides, "Sets one key, over the file and its bases")->type_name("a.b=c");
}

void AddValidateOptions(CLI::App& command, ValidateOptions& options) {
  AddRecipeArguments(command, options.recipe, options.overrides);
  command.add_flag("--keys", options.keys, "Print a table of all keys instead (docs/recipes.md)");
  command.add_flag("--run-folder", options.run_folder, "Print the folder of the run instead");
}

int RunValidate(const ValidateOptions& options) {
  if (options.keys) {
    std::cout << KeysMarkdown();
    return 0;
  }
  if (options.recipe.empty())
    throw ExitError(ExitCode::kUsage, "validate needs a RECIPE; see plural validate --help");
  const Recipe recipe = LoadRecipe(options.recipe, options.overrides);
  if (options.run_folder) {
    std::cout << recipe.RunFolder().string() << "\n";
    return 0;
  }
  std::cout << "# ok: " << options.recipe << ", resolved:\n" << recipe.ResolvedYaml();
  return 0;
}

}  // namespace plural::trainer
