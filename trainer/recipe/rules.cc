#include "trainer/recipe/rules.h"

#include <algorithm>
#include <string_view>

#include "trainer/base/error.h"
#include "trainer/base/printable.h"
#include "trainer/model/config.h"
#include "trainer/recipe/scalar.h"
#include "trainer/recipe/schema.h"

namespace plural::trainer {
namespace {

bool IsFolderName(const std::string& name) {
  constexpr std::size_t kLongest = 200;  // below every file system's 255, with room for suffixes
  const auto allowed = [](unsigned char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' ||
           c == '_' || c == '.' || c == '=' || c == '+' || c == ',';
  };
  return !name.empty() && name.size() <= kLongest && name[0] != '.' && name[0] != '-' &&
         std::all_of(name.begin(), name.end(), allowed);
}

// "runs/a/checkpoints/step-00000200", with or without a slash behind it.
bool IsCheckpointFolder(const std::string& path) {
  const std::size_t end = path.find_last_not_of('/');
  if (end == std::string::npos) return false;
  const std::string name = path.substr(0, end + 1).substr(path.rfind('/', end) + 1);
  constexpr std::string_view kBegin = "step-";
  return name.starts_with(kBegin) && name.size() > kBegin.size() &&
         name.find_first_not_of("0123456789", kBegin.size()) == std::string::npos;
}

class Checker {
 public:
  Checker(const Recipe& recipe, const std::function<bool(const std::string&)>& readable)
      : recipe_(recipe), readable_(readable) {}

  // Adds a violation when `broken` holds and every key it depends on could be read.
  void Rule(bool broken, const std::vector<std::string>& keys, const std::string& what) {
    if (broken && std::all_of(keys.begin(), keys.end(), readable_)) violations_.push_back({keys[0], what});
  }

  // A key that was set to something and changes nothing is a misunderstanding.
  void NoEffect(const std::string& name, bool has_effect, const std::string& cause,
                const std::string& because) {
    const Key& key = *FindKey(name);
    const bool set = key.read(recipe_) != DefaultOf(key, *recipe_.method);
    Rule(set && !has_effect, {name, cause, "method"}, "has no effect " + because + "; remove it");
  }

  std::vector<Violation> Take() { return std::move(violations_); }

 private:
  const Recipe& recipe_;
  const std::function<bool(const std::string&)>& readable_;
  std::vector<Violation> violations_;
};

void CheckModel(const Recipe& recipe, Checker& check) {
  const bool has_path = !recipe.model.path.empty();
  const bool has_config = !recipe.model.config.is_null();
  check.Rule(!has_path && !has_config, {"model.path", "model.config"},
             "missing; give model.path (a Hugging Face folder) or model.config (random weights)");
  check.Rule(has_path && has_config, {"model.path", "model.config"},
             "contradicts model.config; give one of them and set the other to null");
  if (has_config && !has_path) {
    try {
      ModelConfig::FromJson(recipe.model.config, "model.config");
      check.Rule(!recipe.model.config.value("quantization_config", nlohmann::json()).is_null(),
                 {"model.config"}, "holds quantization_config, which random weights have none of; remove it");
    } catch (const ExitError& error) {
      check.Rule(true, {"model.config"}, std::string("is no usable model shape: ") + error.what());
    }
  }
  check.Rule(recipe.model.dtype == "fp64" && recipe.model.device == "cuda", {"model.dtype", "model.device"},
             "fp64 runs on the CPU only; set model.device to cpu or model.dtype to fp32");
  check.Rule(recipe.model.quantize == "nf4" && !recipe.adapter.lora, {"model.quantize", "adapter.type"},
             "is nf4, and adapter.type none trains all weights: those in 4 bits cannot be trained; set "
             "adapter.type to lora or model.quantize to none");
  check.Rule(recipe.model.quantize == "nf4" && has_config && !has_path, {"model.quantize", "model.config"},
             "is nf4, and model.config makes random weights; quantise those of a folder, model.path");
  check.Rule(
      !recipe.adapter.lora && !recipe.adapter.init_from.empty(), {"adapter.init_from", "adapter.type"},
      "contradicts adapter.type none, which trains all weights; remove it or set adapter.type to lora");
}

// Keys that only some methods read, by what the others lack.
void CheckMethod(const Recipe& recipe, Checker& check) {
  const Method& method = *recipe.method;
  const std::string with_method = "with method " + std::string(method.name);
  for (const char* key : {"group.possibilities", "group.max_negatives", "group.assignment", "group.selection",
                          "loss.unlikelihood.alpha", "loss.unlikelihood.mask", "loss.unlikelihood.clamp"}) {
    check.NoEffect(key, method.numbers, "method",
                   with_method + ", which has no possibility numbers and no negatives");
  }
  for (const char* key :
       {"cvf.latents", "cvf.estimator", "cvf.temperature", "cvf.bow_weight", "cvf.new_lr_multiplier"}) {
    check.NoEffect(key, method.latents, "method", with_method + ", which has no latents");
  }
  check.NoEffect("cvf.temperature", !method.latents || recipe.cvf.estimator == LatentEstimator::kGumbelSoft,
                 "cvf.estimator", "with cvf.estimator exact, which draws nothing");
  check.NoEffect("group.responses", method.responses != UsedResponses::kFirst, "method",
                 with_method + ", which takes the first response of a group");
  check.NoEffect("loss.normalize", !method.target_sets, "method",
                 with_method + ", which always sums over the tokens of a target");
  for (const Key& key : Schema()) {
    if (key.BelongsTo(method)) continue;
    check.NoEffect(key.name, false, "method",
                   with_method + "; method " + std::string(key.method->name) + " alone reads it");
  }
}

void CheckGroup(const Recipe& recipe, Checker& check) {
  const auto& group = recipe.group;
  const std::string name(recipe.method->name);
  // 0 takes all responses a group has; the labelling compares those with group.possibilities.
  check.Rule(
      recipe.method->negatives && group.responses == 1, {"group.responses", "method"},
      "must be at least 2 with method " + name + ", whose negatives are other responses; use otoft for one");
  check.Rule(recipe.method->numbers && group.possibilities < std::max<std::int64_t>(group.responses, 2),
             {"group.possibilities", "group.responses", "method"},
             "is " + std::to_string(group.possibilities) + ", method " + name +
                 " needs a different number for each of group.responses = " +
                 std::to_string(group.responses) + (group.responses == 0 ? " (all)" : "") +
                 "; raise it to at least " + std::to_string(std::max<std::int64_t>(group.responses, 2)));
  check.NoEffect("group.selection", group.assignment == data::Assignment::kAligned, "group.assignment",
                 "without group.assignment aligned");
  check.Rule(group.selection == data::Selection::kAligned && group.responses == 0,
             {"group.selection", "group.responses"},
             "has nothing to choose with group.responses 0, which takes all; give a number of responses");
}

void CheckRun(const Recipe& recipe, Checker& check) {
  check.Rule(
      !IsFolderName(recipe.name), {"name"},
      "must be a folder name of letters, digits and . _ - = + , that starts with none of . and -, found '" +
          Printable(Shortened(recipe.name)) + "'");
  check.Rule(recipe.ResumesFromFolder() && !IsCheckpointFolder(recipe.resume), {"resume"},
             "must be auto, require, never or the folder of a checkpoint, such as "
             "runs/a/checkpoints/step-00000200, found '" +
                 Printable(Shortened(recipe.resume)) + "'");
  check.Rule(recipe.run.dir.empty(), {"run.dir"}, "must not be empty; . is the current folder");
  check.Rule(recipe.data.train.empty(), {"data.train"},
             "missing; give the corpus to train on (plural prepare makes it)");
  for (const char* key : {"validation.every_steps", "validation.groups", "validation.responses",
                          "validation.max_new_tokens", "validation.temperature"}) {
    check.NoEffect(key, !recipe.data.validation.empty(), "data.validation", "without data.validation");
  }
  check.Rule(!recipe.data.validation.empty() && recipe.method->numbers &&
                 recipe.validation.responses > recipe.group.possibilities,
             {"validation.responses", "group.possibilities", "method", "data.validation"},
             "is " + std::to_string(recipe.validation.responses) +
                 ", but each needs a possibility number of its own and group.possibilities is " +
                 std::to_string(recipe.group.possibilities) + "; lower it to that");
  check.Rule(!recipe.data.validation.empty() && recipe.method->latents &&
                 recipe.validation.responses > recipe.cvf.latents,
             {"validation.responses", "cvf.latents", "method", "data.validation"},
             "is " + std::to_string(recipe.validation.responses) +
                 ", but each needs a latent of its own and cvf.latents is " +
                 std::to_string(recipe.cvf.latents) + "; lower it to that");
  check.NoEffect("train.activation_bytes", recipe.train.activation_checkpointing == "auto",
                 "train.activation_checkpointing", "unless train.activation_checkpointing is auto");
  for (const char* key : {"profile.after", "profile.steps"}) {
    check.NoEffect(key, recipe.profile.enabled, "profile.enabled", "without profile.enabled true");
  }
  check.NoEffect("train.bucket_bytes", !recipe.train.canonical, "train.reduction",
                 "with train.reduction canonical, which sends nothing before all gradients are there");
  for (const char* key :
       {"watchdog.start_seconds", "watchdog.load_seconds", "watchdog.step_seconds",
        "watchdog.checkpoint_seconds", "watchdog.validation_seconds", "watchdog.nccl_seconds"}) {
    check.NoEffect(key, recipe.watchdog.enabled, "watchdog.enabled", "without watchdog.enabled true");
  }
  for (const char* key : {"guard.window_steps", "guard.factor"}) {
    check.NoEffect(key, recipe.guard.spike != SpikeAction::kOff, "guard.spike", "with guard.spike off");
  }
  check.NoEffect("guard.collapse_factor", recipe.guard.collapse != CollapseAction::kOff, "guard.collapse",
                 "with guard.collapse off");
  const bool validates = !recipe.data.validation.empty() && recipe.validation.every_steps > 0;
  const auto needs_validations = [&](bool asks, const char* key) {
    check.Rule(asks && !validates, {key, "data.validation", "validation.every_steps"},
               "needs validations while the run trains; give data.validation, and validation.every_steps "
               "above 0, or set it to off");
  };
  needs_validations(recipe.guard.collapse != CollapseAction::kOff, "guard.collapse");
  check.Rule(!recipe.checkpoint.mirror.empty() &&
                 (std::filesystem::path(recipe.checkpoint.mirror) / "").lexically_normal() ==
                     (std::filesystem::path(recipe.run.dir) / "").lexically_normal(),
             {"checkpoint.mirror", "run.dir"},
             "is run.dir, where the first copies are; give a folder on another disk");
  needs_validations(recipe.KeepsBest(), "checkpoint.keep_best");
  check.Rule(recipe.guard.collapse == CollapseAction::kLower && !recipe.method->negatives,
             {"guard.collapse", "method"},
             "is lower, and method " + std::string(recipe.method->name) +
                 " has no unlikelihood weight; set it to warn or stop");
  check.Rule(recipe.checkpoint.keep_best == "kl_nats" && !recipe.method->target_sets,
             {"checkpoint.keep_best", "method"},
             "is kl_nats, which method distribution_matching alone measures; set it to loss or perplexity");
  const bool stops = recipe.early_stop.enabled;
  check.Rule(stops && !recipe.method->target_sets, {"early_stop.enabled", "method"},
             "needs the target entropy of method distribution_matching, found method " +
                 std::string(recipe.method->name) + "; set it to false");
  check.NoEffect("early_stop.gamma", stops, "early_stop.enabled", "without early_stop.enabled true");
  check.NoEffect("optimizer.min_lr_rate", recipe.optimizer.schedule == "cosine_with_min_lr",
                 "optimizer.schedule", "unless optimizer.schedule is cosine_with_min_lr");
  check.Rule(recipe.optimizer.warmup_steps > 0 && recipe.optimizer.warmup_ratio > 0.0,
             {"optimizer.warmup_ratio", "optimizer.warmup_steps"},
             "contradicts optimizer.warmup_steps; give one of them");
  const auto& steps = recipe.train.steps;
  check.Rule(steps && recipe.optimizer.warmup_steps > *steps, {"optimizer.warmup_steps", "train.steps"},
             "is " + std::to_string(recipe.optimizer.warmup_steps) + ", more than the " +
                 std::to_string(steps.value_or(0)) + " steps of the run (train.steps); lower it");
}

void CheckLog(const Recipe& recipe, Checker& check) {
  const auto& wandb = recipe.log.wandb;
  for (const char* key : {"log.wandb.mode", "log.wandb.entity", "log.wandb.name"}) {
    check.NoEffect(key, !wandb.project.empty(), "log.wandb.project", "without log.wandb.project");
  }
  // The service refuses others, when the run has begun.
  constexpr std::size_t kLongestProject = 128;
  check.Rule(
      wandb.project.size() > kLongestProject || wandb.project.find_first_of("/\\#?%:") != std::string::npos,
      {"log.wandb.project"},
      "must have at most " + std::to_string(kLongestProject) + " bytes and none of / \\ # ? % :, found '" +
          Printable(Shortened(wandb.project)) + "'" +
          (wandb.project.find('/') == std::string::npos ? "" : "; the team is log.wandb.entity"));
}

}  // namespace

std::vector<Violation> CheckRules(const Recipe& recipe,
                                  const std::function<bool(const std::string& key)>& readable) {
  Checker check(recipe, readable);
  CheckModel(recipe, check);
  CheckGroup(recipe, check);
  CheckMethod(recipe, check);
  CheckRun(recipe, check);
  CheckLog(recipe, check);
  return check.Take();
}

}  // namespace plural::trainer
