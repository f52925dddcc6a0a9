#include "trainer/run/train_setup.h"

#include <algorithm>
#include <filesystem>
#include <set>
#include <system_error>

#include "data/error.h"
#include "data/sha256.h"
#include "trainer/base/error.h"
#include "trainer/base/printable.h"
#include "trainer/base/readable.h"
#include "trainer/files/corpus_fit.h"
#include "trainer/files/hf_folder.h"
#include "trainer/files/hub_cache.h"
#include "trainer/files/template_fit.h"
#include "trainer/kernels/dtypes.h"
#include "trainer/plan/cost_model.h"
#include "trainer/plan/step_plan.h"
#include "trainer/recipe/schema.h"
#include "trainer/run/run_folder.h"

namespace plural::trainer {
namespace {

void RequireSameAdapter(const AdapterSettings& recipe, const AdapterSettings& folder,
                        const std::string& path) {
  const auto differ = [&](const std::string& key, const std::string& wanted, const std::string& found) {
    throw ExitError(ExitCode::kBadRecipe, key + " is " + wanted + ", but the adapter of adapter.init_from (" +
                                              path + ") has " + found + "; set " + key + " to that");
  };
  if (recipe.rank != folder.rank) {
    differ("adapter.rank", std::to_string(recipe.rank), std::to_string(folder.rank));
  }
  if (recipe.alpha != folder.alpha) {
    differ("adapter.alpha", std::to_string(recipe.alpha), std::to_string(folder.alpha));
  }
  const auto list = [](const std::vector<std::string>& targets) {
    std::string text;  // in order of name: the order of targets means nothing
    for (const auto& target : std::set(targets.begin(), targets.end())) {
      text += (text.empty() ? "[" : ", ") + target;
    }
    return text + "]";
  };
  if (list(recipe.targets) != list(folder.targets)) {
    differ("adapter.targets", list(recipe.targets), list(folder.targets));
  }
}

void RequireSameLatents(const Recipe& recipe, std::int64_t found, const std::string& path) {
  if (found == 0) return;
  const std::string what = path + " has " + std::to_string(found) + " latents, made by method cvf; ";
  if (!recipe.method->latents) {
    throw ExitError(ExitCode::kBadRecipe, "adapter.init_from: " + what + "method " +
                                              std::string(recipe.method->name) +
                                              " does not train them. Start from another adapter, or set "
                                              "method to cvf");
  }
  if (recipe.cvf.latents != found) {
    throw ExitError(ExitCode::kBadRecipe, "cvf.latents is " + std::to_string(recipe.cvf.latents) + ", but " +
                                              what + "set cvf.latents to that");
  }
}

// For a method with numbers on a corpus that has none.
std::string AdviceWithoutNumbers(const std::string& source_format, const std::string& numbers) {
  if (source_format == "targets") return "use method distribution_matching";
  if (source_format == "text") return "use method pretrain or otoft";
  return "prepare it with --possibilities " + numbers + ", or use method otmft";
}

void CheckCounts(data::Corpus& corpus, const Recipe& recipe) {
  const std::string file = corpus.Path().string();
  if (corpus.Info().responses == 0) {
    throw ExitError(
        ExitCode::kBadData,
        file + ": holds prompts without responses; nothing can be trained on it, only generated for");
  }
  const int numbers = corpus.Info().possibilities;
  if (recipe.method->numbers && numbers < recipe.group.possibilities) {
    const std::string wanted = std::to_string(recipe.group.possibilities);
    throw ExitError(
        ExitCode::kBadData,
        file + (numbers > 0 ? ": has " + std::to_string(numbers) +
                                  " possibility numbers; group.possibilities asks for " + wanted +
                                  "; lower it, or prepare the corpus with --possibilities " + wanted
                            : ": was prepared as " + corpus.Info().source_format +
                                  ", without the possibility numbers that method " +
                                  std::string(recipe.method->name) + " needs; " +
                                  AdviceWithoutNumbers(corpus.Info().source_format, wanted)));
  }
  if (recipe.method->responses != UsedResponses::kSetting) return;
  std::int64_t short_groups = 0, first = 0, fewest = recipe.group.responses;
  for (std::int64_t group = 0; group < corpus.Info().groups; ++group) {
    const auto responses = static_cast<std::int64_t>(corpus.Lengths(group).responses.size());
    if (responses >= recipe.group.responses) continue;
    if (short_groups++ == 0) first = group;
    fewest = std::min(fewest, responses);
  }
  if (short_groups == 0) return;
  throw ExitError(
      ExitCode::kBadData,
      file + ": group.responses asks for " + std::to_string(recipe.group.responses) + ", and " +
          std::to_string(short_groups) + " of " + Counted(corpus.Info().groups, "group") +
          (short_groups == 1 ? " has" : " have") + " fewer, first '" + Printable(corpus.Read(first).id) +
          "' with " + std::to_string(corpus.Lengths(first).responses.size()) + "; set group.responses to " +
          std::to_string(fewest) + ", or prepare the corpus with --min-responses " +
          std::to_string(recipe.group.responses) +
          (fewest == 1 ? " (or with --group-by-prompt, where each record has one response of several)" : ""));
}

// Target sets of another kind of corpus can be meant, but seldom are.
void CheckKind(const data::Corpus& corpus, const Recipe& recipe, std::vector<std::string>& warnings) {
  const std::string& kind = corpus.Info().source_format;
  if (!recipe.method->target_sets || kind == "targets") return;
  warnings.push_back(corpus.Path().string() + " was prepared as " + kind + ": method " +
                     std::string(recipe.method->name) +
                     " takes the responses of a group as a target distribution, by their weights; for many "
                     "different responses use method poexft or otmft, and for a distribution prepare the "
                     "corpus with --format targets");
}

// An aligned assignment needs a corpus that says what exactly these numbers stand for.
void CheckAlignment(const data::Corpus& corpus, const Recipe& recipe) {
  if (!recipe.method->numbers || recipe.group.assignment != data::Assignment::kAligned) return;
  const std::int64_t wanted = recipe.group.possibilities;
  const int found = corpus.Info().alignment.possibilities;
  if (found == wanted) return;
  const std::string again = "prepare it again with --align " + std::to_string(wanted) + " or --align kinds";
  throw ExitError(ExitCode::kBadData,
                  corpus.Path().string() +
                      (found == 0 ? ": does not say what possibility numbers stand for, as group.assignment "
                                    "aligned needs; " +
                                        again
                                  : ": says what " + std::to_string(found) +
                                        " possibility numbers stand for; group.possibilities asks for " +
                                        std::to_string(wanted) + "; set it to " + std::to_string(found) +
                                        ", or " + again));
}

// Target sets are few and small beside the steps taken on them: all are labelled before the first step,
// so that a bad one does not end a run half-way.
void CheckTargets(data::Corpus& corpus, const Recipe& recipe, std::vector<std::string>& warnings) {
  std::int64_t certain = 0;  // groups whose target is a single response
  for (std::int64_t group = 0; group < corpus.Info().groups; ++group) {
    const auto labelled = Label(*recipe.method, corpus.Read(group), recipe.SettingsOfMethod().label, 0);
    if (labelled.target_entropy_nats == 0.0) ++certain;
  }
  if (certain > 0 && recipe.early_stop.enabled) {
    warnings.push_back(std::to_string(certain) +
                       " groups have a single target, whose entropy is 0: their loss can never come within "
                       "early_stop.gamma of it, and the run may not stop early");
  }
}

// The folder of the adapter that the run goes on with, or of the model all of whose weights are trained; ""
// for neither.
std::string StartFolder(const Recipe& recipe) {
  return recipe.adapter.lora ? AdapterFolder(recipe) : ModelFolder(recipe);
}

}  // namespace

std::string ModelFolder(const Recipe& recipe) {
  return recipe.model.path.empty() ? "" : HubFolder(recipe.model.path, "model.path");
}

std::string AdapterFolder(const Recipe& recipe) {
  return recipe.adapter.init_from.empty() ? "" : HubFolder(recipe.adapter.init_from, "adapter.init_from");
}

ModelConfig ConfigOf(const Recipe& recipe) {
  return recipe.model.path.empty() ? ModelConfig::FromJson(recipe.model.config, "model.config")
                                   : ModelConfig::FromFolder(ModelFolder(recipe));
}

Decoder MakeBase(const Recipe& recipe, const ModelConfig& config, at::Device device) {
  if (!recipe.adapter.init_from.empty()) {
    RequireSameAdapter(recipe.adapter.settings, ReadAdapterConfig(AdapterFolder(recipe)),
                       recipe.adapter.init_from);
  }
  const std::string latents_folder = StartFolder(recipe);
  const bool may_have_latents = recipe.adapter.lora || recipe.method->latents;
  if (may_have_latents && !latents_folder.empty()) {
    RequireSameLatents(recipe, LatentsIn(latents_folder), latents_folder);
  }
  const at::ScalarType dtype = DTypeNamed(recipe.model.dtype);
  Decoder model(config, dtype, device, recipe.adapter.lora ? dtype : ComputedIn(dtype),
                recipe.model.path.empty() ? Decoder::Linears::kNow : Decoder::Linears::kLater);
  if (recipe.model.path.empty()) model.InitializeRandom(recipe.seed);
  return model;
}

void AddTrained(const Recipe& recipe, Decoder& model) {
  if (recipe.adapter.lora) {
    model.AddAdapter(recipe.adapter.settings, recipe.seed);
  } else {
    for (const auto& [name, tensor] : model.BaseParameters()) {
      if (model.Nf4(name) == nullptr) continue;
      throw ExitError(ExitCode::kBadRecipe,
                      "adapter.type is none, which trains all weights, but " + recipe.model.path +
                          " (model.path) stores '" + name +
                          "' in NF4, which cannot be trained; set adapter.type to lora or give the "
                          "unquantised model");
    }
    model.TrainBase();
  }
  if (recipe.method->latents) model.AddLatents(recipe.cvf.latents, recipe.seed);
  if (!recipe.adapter.init_from.empty()) LoadAdapterWeights(model, AdapterFolder(recipe));
  const std::string latents_folder = StartFolder(recipe);
  if (model.LatentHeads() != nullptr && LatentsIn(latents_folder) > 0) LoadLatents(model, latents_folder);
}

std::vector<double> LearningRateScales(const Recipe& recipe, const Decoder& model) {
  std::vector<double> scales;
  for (const auto& [name, tensor] : model.TrainableParameters()) {
    scales.push_back(name.starts_with(kLatentPrefix) ? recipe.cvf.new_lr_multiplier : 1.0);
  }
  return scales;
}

data::Corpus OpenCorpusOf(const Recipe& recipe, const std::string& key, const std::string& path,
                          const data::CorpusLimits& limits) {
  std::error_code error;
  if (std::filesystem::exists(path, error)) return data::Corpus(path, limits);
  throw ExitError(ExitCode::kMissingInput, recipe.origins.at(key) + ": " + key + " is " + path +
                                               ", which is not there; make it with `plural prepare ... -o " +
                                               path + "`, or name another corpus (" + key + "=FILE)");
}

void CheckTrainingCorpus(data::Corpus& corpus, const Recipe& recipe, const ModelConfig& config,
                         std::vector<std::string>& warnings) {
  for (std::string& warning : CheckCorpus(corpus, recipe, config)) warnings.push_back(std::move(warning));
  // What the run goes on with: an adapter, or a model all of whose weights are trained.
  if (const std::string folder = StartFolder(recipe); !folder.empty()) {
    if (std::string other = OtherTemplate(corpus, folder); !other.empty())
      warnings.push_back(std::move(other));
  }
  RequireWarmupWithin(recipe, corpus.Info().groups);
}

void CheckValidationCorpus(data::Corpus& validation, const data::Corpus& train, const Recipe& recipe,
                           const ModelConfig& config, std::vector<std::string>& warnings) {
  for (std::string& warning : CheckCorpus(validation, recipe, config)) warnings.push_back(std::move(warning));
  if (std::string other = OtherTemplate(validation, train); !other.empty())
    warnings.push_back(std::move(other));
}

std::vector<std::string> CheckCorpus(data::Corpus& corpus, const Recipe& recipe, const ModelConfig& config) {
  std::vector<std::string> warnings;
  if (!CheckCorpusFitsModel(corpus, config, ModelFolder(recipe)) && !recipe.model.path.empty()) {
    warnings.push_back(recipe.model.path + " has no tokenizer file " + corpus.Info().tokenizer_name +
                       ": whether the corpus was prepared with the model's tokenizer is not checked");
  }
  RequireWithinContext(corpus, corpus.LongestSequence(), config, recipe.method->latents);
  CheckCounts(corpus, recipe);
  CheckAlignment(corpus, recipe);
  CheckKind(corpus, recipe, warnings);
  if (recipe.method->target_sets) CheckTargets(corpus, recipe, warnings);
  return warnings;
}

Loader::Settings LoaderSettings(const Recipe& recipe, const ModelConfig& config, at::Device device,
                                const dist::World& world) {
  Loader::Settings settings;
  settings.method = recipe.method;
  settings.label = recipe.SettingsOfMethod().label;
  settings.pack.layout = recipe.train.layout;
  settings.pack.cost = CostOf(config, !recipe.adapter.lora, ElementBytes(recipe.model.dtype), device);
  settings.pack.row_budget = RowBudgetOf(recipe.train.row_budget, recipe.train.layout, recipe.method->latents,
                                         config, ElementBytes(recipe.model.dtype), device);
  settings.plan = PlanSettings(recipe);
  settings.rank = world.Rank();
  settings.ranks = world.Size();
  settings.apart = recipe.train.canonical;
  return settings;
}

Validation::Settings ValidationSettings(const Recipe& recipe, const ModelConfig& config, at::Device device) {
  Validation::Settings settings{.method = recipe.method,
                                .values = recipe.SettingsOfMethod(),
                                .pack = {},
                                .groups = recipe.validation.groups,
                                .responses = recipe.validation.responses,
                                .max_new_tokens = recipe.validation.max_new_tokens,
                                .temperature = recipe.validation.temperature};
  settings.pack.layout = recipe.train.layout;
  settings.pack.cost = CostOf(config, false, ElementBytes(recipe.model.dtype), device);
  return settings;
}

void RequireWarmupWithin(const Recipe& recipe, std::int64_t groups) {
  const std::int64_t steps = TotalSteps(recipe, groups);
  const std::int64_t warmup = WarmupSteps(recipe, groups);
  if (warmup <= steps) return;
  throw ExitError(ExitCode::kBadRecipe,
                  recipe.origins.at("optimizer.warmup_steps") + ": optimizer.warmup_steps is " +
                      std::to_string(warmup) + ", more than the " + Counted(steps, "step") + " of the run (" +
                      Counted(recipe.train.epochs, "epoch") + " of " + Counted(groups, "group") +
                      "): the learning rate would never reach optimizer.lr; lower it");
}

}  // namespace plural::trainer
