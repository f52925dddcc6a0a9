#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "trainer/base/error.h"
#include "trainer/recipe/recipe.h"
#include "trainer/recipe/schema.h"
#include "trainer/recipe/suggest.h"

namespace plural::trainer {
namespace {

namespace fs = std::filesystem;

class RecipeLoad : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("plural_recipe_" + std::to_string(getpid()));
    fs::create_directories(folder_ / "base");
  }
  void TearDown() override { fs::remove_all(folder_); }

  fs::path Write(const std::string& name, const std::string& text) const {
    std::ofstream(folder_ / name) << text;
    return folder_ / name;
  }

  // The smallest recipe, with `text` after it.
  fs::path WriteRecipe(const std::string& text) const {
    return Write("run.yaml", "model: {path: m}\ndata: {train: d.h5}\n" + text);
  }

  std::string ErrorOf(const fs::path& file, const std::vector<std::string>& overrides = {},
                      ExitCode code = ExitCode::kBadRecipe) const {
    try {
      LoadRecipe(file, overrides);
    } catch (const ExitError& error) {
      EXPECT_EQ(error.Code(), code) << error.what();
      return error.what();
    }
    return "accepted";
  }

  std::string At(const std::string& name, int line) const {
    return (folder_ / name).string() + ":" + std::to_string(line);
  }

  fs::path folder_;
};

bool Has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

TEST_F(RecipeLoad, SmallestRecipeHasDefaults) {
  const Recipe recipe = LoadRecipe(WriteRecipe(""), {});
  EXPECT_EQ(recipe.name, "run");
  EXPECT_EQ(recipe.origins.at("name"), "file name");
  EXPECT_EQ(recipe.method->name, "poexft");
  EXPECT_EQ(recipe.group.responses, 4);
  EXPECT_EQ(recipe.group.possibilities, 9);
  EXPECT_EQ(recipe.optimizer.lr, 5e-5);
  EXPECT_EQ(recipe.optimizer.eps, 1e-8);
  EXPECT_EQ(recipe.origins.at("optimizer.lr"), "default");
  EXPECT_EQ(recipe.adapter.settings.targets,
            (std::vector<std::string>{"q_proj", "k_proj", "v_proj", "lm_head"}));
  EXPECT_EQ(recipe.origins.size(), Schema().size()) << "every key has an origin";
}

TEST_F(RecipeLoad, DefaultsDependOnTheMethodAndYieldToTheRecipe) {
  const Recipe matching =
      LoadRecipe(WriteRecipe("method: distribution_matching\noptimizer: {clip_norm: 2}\n"), {});
  EXPECT_EQ(matching.group.responses, 0);
  EXPECT_EQ(matching.train.epochs, 50);
  EXPECT_EQ(matching.optimizer.eps, 1e-5);
  EXPECT_EQ(matching.optimizer.weight_decay, 0.01);
  EXPECT_EQ(matching.optimizer.clip_norm, 2.0);
  EXPECT_EQ(matching.origins.at("optimizer.eps"), "default of distribution_matching");
  // Set back to null, the method's default returns, not the general one.
  EXPECT_EQ(LoadRecipe(WriteRecipe("method: distribution_matching\noptimizer: {clip_norm: 2}\n"),
                       {"optimizer.clip_norm=null"})
                .optimizer.clip_norm,
            1.0);
  EXPECT_FALSE(LoadRecipe(WriteRecipe("method: pretrain\n"), {}).adapter.lora);
  EXPECT_TRUE(LoadRecipe(WriteRecipe("method: pretrain\nadapter: {type: lora}\n"), {}).adapter.lora);
  EXPECT_EQ(LoadRecipe(WriteRecipe("method: otoft\n"), {}).train.groups_per_step, 8);
}

TEST_F(RecipeLoad, AMethodOfTwoWordsIsPrintedByOneAndKeptByTheOther) {
  const Recipe older = LoadRecipe(WriteRecipe("method: peft\n"), {});
  const Recipe newer = LoadRecipe(WriteRecipe("method: poexft\n"), {});
  EXPECT_EQ(older.method, newer.method);
  EXPECT_NE(older.ResolvedYaml().find("\nmethod: poexft  "), std::string::npos) << older.ResolvedYaml();
  // Checkpoints hold the hash of this: a run begun with the older word goes on.
  EXPECT_EQ(older.Canonical().at("method"), "peft");
  EXPECT_EQ(older.Canonical(), newer.Canonical());
  EXPECT_EQ(LoadRecipe(WriteRecipe("method: gem\n"), {}).Canonical().at("method"), "gem");
}

TEST_F(RecipeLoad, BasesMergeMapsReplaceListsAndReset) {
  Write("base/model.yaml", "model:\n  path: m\n  dtype: fp64\nadapter: {rank: 8, targets: [q_proj]}\n");
  Write("base/second.yaml", "adapter:\n  alpha: 5\n  rank: 9\noptimizer: {lr: 1}\n");
  const fs::path file = Write("run.yaml",
                              "base: [base/model.yaml, base/second.yaml]\n"
                              "data: {train: d.h5}\n"
                              "adapter:\n"
                              "  targets: [v_proj, k_proj]\n"
                              "optimizer: {lr: null}\n");
  const Recipe recipe = LoadRecipe(file, {"adapter.dropout=0.25"});
  EXPECT_EQ(recipe.adapter.settings.rank, 9) << "later bases win";
  EXPECT_EQ(recipe.adapter.settings.alpha, 5);
  EXPECT_EQ(recipe.adapter.settings.targets, (std::vector<std::string>{"v_proj", "k_proj"}));
  EXPECT_EQ(recipe.optimizer.lr, 5e-5) << "null resets an inherited value";
  EXPECT_EQ(recipe.origins.at("adapter.rank"), At("base/second.yaml", 3));
  EXPECT_EQ(recipe.origins.at("model.dtype"), At("base/model.yaml", 3));
  EXPECT_EQ(recipe.origins.at("adapter.targets"), At("run.yaml", 4));
  EXPECT_EQ(recipe.origins.at("adapter.dropout"), "command line");
  EXPECT_EQ(recipe.origins.at("optimizer.lr"), "default");

  // null for a whole section resets all of it.
  const fs::path reset = Write("reset.yaml", "base: base/model.yaml\ndata: {train: d.h5}\nadapter: null\n");
  EXPECT_EQ(LoadRecipe(reset, {}).adapter.settings.rank, 16);
}

TEST_F(RecipeLoad, BasesAreRelativeToTheFileThatNamesThem) {
  Write("base/root.yaml", "model: {path: m}\n");
  Write("base/middle.yaml", "base: root.yaml\ndata: {train: d.h5}\n");
  EXPECT_EQ(LoadRecipe(Write("run.yaml", "base: base/middle.yaml\n"), {}).model.path, "m");
  const std::string error =
      ErrorOf(Write("run.yaml", "seed: 1\nbase: [base/none.yaml]\n"), {}, ExitCode::kMissingInput);
  EXPECT_TRUE(Has(error, At("run.yaml", 2)) && Has(error, "base/none.yaml")) << error;
}

TEST_F(RecipeLoad, BasesInACircleOrWithoutEndAreRefused) {
  Write("a.yaml", "base: b.yaml\n");
  Write("b.yaml", "base: ./../" + folder_.filename().string() + "/a.yaml\n");
  EXPECT_TRUE(Has(ErrorOf(folder_ / "a.yaml"), "circle"));
  EXPECT_TRUE(Has(ErrorOf(Write("self.yaml", "base: self.yaml\n")), "circle"));
  // Each file names the next twice: 2^20 readings without a bound.
  for (int i = 0; i < 20; ++i) {
    const std::string next = "d" + std::to_string(i + 1) + ".yaml";
    Write("d" + std::to_string(i) + ".yaml", "base: [" + next + ", " + next + "]\n");
  }
  Write("d20.yaml", "seed: 1\n");
  EXPECT_TRUE(Has(ErrorOf(folder_ / "d0.yaml"), "more than 64 files"));
  EXPECT_TRUE(Has(ErrorOf(Write("map.yaml", "base: {a: 1}\n")), "base must be a file name"));
}

TEST_F(RecipeLoad, WrongTypesNameKeyLineFoundAndAllowed) {
  const struct {
    std::string text, found, allowed;
  } cases[] = {
      {"seed: abc", "'abc'", "integer in [0,"},
      {"seed: -1", "'-1'", "integer in [0,"},
      {"seed: 010", "'010'", "decimal digits only"},
      {"seed: 0x10", "'0x10'", "decimal digits only"},
      {"seed: \"7\"", "text '7'", "without quotes"},
      {"seed: 1.0", "'1.0'", "integer"},
      {"seed: [1]", "a list", "integer"},
      {"seed: {a: 1}", "a map", "integer"},
      {"optimizer: {lr: .nan}", "'.nan'", "finite decimal"},
      {"optimizer: {lr: .inf}", "'.inf'", "finite decimal"},
      {"optimizer: {lr: 0}", "'0'", "number > 0"},
      {"optimizer: {lr: 1e999}", "'1e999'", "finite decimal"},
      {"optimizer: {betas: [0.9]}", "a list", "two numbers"},
      {"optimizer: {betas: [0.9, 1.0]}", "'1.0'", "number in [0, 1)"},
      {"optimizer: {betas: 0.9}", "'0.9'", "two numbers"},
      {"optimizer: {schedule: step}", "'step'", "constant, linear, cosine"},
      {"data: {shuffle: yes}", "'yes'", "true or false"},
      {"data: {shuffle: on}", "'on'", "true or false"},
      {"data: {shuffle: 1}", "'1'", "true or false"},
      {"data: {validation: [a]}", "a list", "text"},
      {"adapter: {rank: 0}", "'0'", "integer in [1, 4096]"},
      {"adapter: {dropout: 1}", "'1'", "number in [0, 1)"},
      {"adapter: {targets: q_proj}", "'q_proj'", "a list such as"},
      {"adapter: {targets: []}", "an empty list", "a list such as"},
      {"adapter: {targets: [c_attn]}", "'c_attn'", "lm_head"},
      {"adapter: {targets: [q_proj, q_proj]}", "q_proj twice", "keep one"},
      {"adapter: lora", "'adapter' is a section", "type, rank, alpha"},
      {"optimizer: [1]", "'optimizer' is a section", "lr, betas"},
      {"train: {steps: 0}", "'0'", "integer in [1,"},
      {"checkpoint: {keep: 0}", "'0'", "integer in [1,"},
      {"method: sft", "'sft'", "otmft, otoft, poexft, peft, pretrain"},
      {"cvf: {estimator: hard}", "'hard'", "gumbel_soft, exact"},
      {"cvf: {latents: 0}", "'0'", "integer in [2, 4096]"},
      {"cvf: {temperature: 0}", "'0'", "number > 0"},
      {"cvf: {bow_weight: -1}", "'-1'", "number in [0,"},
      {"cvf: {new_lr_multiplier: 0}", "'0'", "number > 0"},
      {"group: {assignment: kinds}", "'kinds'", "sampled, fixed, sequential, aligned"},
      {"group: {selection: best}", "'best'", "first, aligned"},
  };
  for (const auto& test : cases) {
    const bool sets_data = test.text.starts_with("data:");
    const fs::path file =
        Write("run.yaml", "model: {path: m}\n" + test.text + (sets_data ? "\n" : "\ndata: {train: d.h5}\n"));
    const std::string error =
        ErrorOf(file, sets_data ? std::vector<std::string>{"data.train=d.h5"} : std::vector<std::string>{});
    EXPECT_TRUE(error.starts_with(At("run.yaml", 2) + ": ")) << test.text << " -> " << error;
    EXPECT_TRUE(Has(error, test.found)) << test.text << " -> " << error;
    EXPECT_TRUE(Has(error, test.allowed)) << test.text << " -> " << error;
    EXPECT_FALSE(Has(error, "\n")) << test.text << " -> " << error;
  }
}

TEST_F(RecipeLoad, ATildeIsTheHomeFolder) {
  const char* before = std::getenv("HOME");
  const std::string kept = before == nullptr ? "" : before;
  setenv("HOME", "/home/reader", 1);
  const Recipe recipe = LoadRecipe(WriteRecipe("run: {dir: ~/runs}"), {"model.path=~/m", "data.train=a/~/c"});
  EXPECT_EQ(recipe.run.dir, "/home/reader/runs");
  EXPECT_EQ(recipe.model.path, "/home/reader/m");
  EXPECT_EQ(recipe.data.train, "a/~/c");
  EXPECT_NE(
      ErrorOf(WriteRecipe("run: {dir: ~other/runs}")).find("run.dir is '~other/runs'; only '~/' is known"),
      std::string::npos);
  unsetenv("HOME");
  EXPECT_NE(ErrorOf(WriteRecipe("run: {dir: ~/runs}")).find("HOME is not set"), std::string::npos);
  if (before != nullptr) setenv("HOME", kept.c_str(), 1);
}

TEST_F(RecipeLoad, UnknownKeysNameTheNearestOne) {
  const struct {
    std::string text, advice;
  } cases[] = {
      // Slips.
      {"sead: 1", "did you mean seed?"},
      {"optimizer: {lrr: 1}", "did you mean optimizer.lr?"},
      {"optimizer: {warmup: 1}", "keys of optimizer: lr, betas"},
      {"adapter: {rnak: 8}", "did you mean adapter.rank?"},
      {"adapter: {Rank: 8}", "use adapter.rank"},
      {"adapter: {init-from: x}", "use adapter.init_from"},
      {"train: {epoch: 1}", "did you mean train.epochs?"},
      {"epochs: 1", "did you mean train.epochs?"},
      {"rank: 1", "did you mean adapter.rank?"},
      {"grup: {responses: 2}", "did you mean group?"},
      {"loss: {unlikelyhood: {alpha: 1}}", "did you mean loss.unlikelihood?"},
      {"loss: {alpha: 1}", "did you mean loss.unlikelihood.alpha?"},
      {"xyzzyplugh: 1", "known keys: base, name, method, seed, resume, run, model"},
      {"optimizer.lr: 1", "in a file, write it as a section"},
      // Words of other programs.
      {"lora_r: 16", "use adapter.rank"},
      {"lora_rank: 16", "use adapter.rank"},
      {"adapter: {r: 16}", "use adapter.rank"},
      {"lora_alpha: 16", "use adapter.alpha"},
      {"lora_target_modules: [q_proj]", "use adapter.targets"},
      {"lora: {r: 16}", "use adapter"},
      {"learning_rate: 1e-4", "use optimizer.lr"},
      {"optimizer: {learning_rate: 1e-4}", "use optimizer.lr"},
      {"base_model: x", "use model.path"},
      {"model_name_or_path: x", "use model.path"},
      {"load_in_4bit: true", "use model.quantize: nf4"},
      {"micro_batch_size: 1", "not needed: train.groups_per_step counts"},
      {"per_device_train_batch_size: 1", "not needed: train.groups_per_step counts"},
      {"load_in_8bit: true", "8 bits are not supported"},
      {"wandb_project: x", "use log.wandb.project"},
      {"report_to: wandb", "use log.tensorboard: true or log.wandb.project"},
      {"push_to_hub: true", "there is none: the result is a folder"},
      {"eval_strategy: steps", "name a corpus with data.validation"},
      {"dataset_name: x", "set data.train to the corpus"},
      {"flash_attention: true", "not needed: the program has attention"},
      {"stage: sft", "use method: poexft"},
      {"do_train: true", "not needed: `plural train` trains"},
      {"plot_loss: true", "there is none: metrics.jsonl"},
      {"gradient_accumulation_steps: 4",
       "use train.groups_per_step: it counts the groups of one optimizer step"},
      {"num_train_epochs: 3", "use train.epochs"},
      {"max_steps: 3", "use train.steps"},
      {"max_grad_norm: 1", "use optimizer.clip_norm"},
      {"lr_scheduler_type: cosine", "use optimizer.schedule"},
      {"warmup_ratio: 0.1", "did you mean optimizer.warmup_ratio?"},
      {"output_dir: x", "use run.dir"},
      {"save_steps: 3", "use checkpoint.every_steps"},
      {"save_total_limit: 3", "use checkpoint.keep"},
      {"gradient_checkpointing: true", "use train.activation_checkpointing"},
      {"sequence_len: 512", "set when the corpus is made: see `plural prepare"},
  };
  for (const auto& test : cases) {
    const std::string error = ErrorOf(WriteRecipe(test.text + "\n"));
    EXPECT_TRUE(error.starts_with(At("run.yaml", 3) + ": unknown key '")) << test.text << " -> " << error;
    EXPECT_TRUE(Has(error, "; " + test.advice)) << test.text << " -> " << error;
    EXPECT_FALSE(Has(error, "\n")) << test.text << " -> " << error;
  }
}

TEST(RecipeSuggest, EditDistanceCountsSwapsAsOne) {
  EXPECT_EQ(EditDistance("", "abc"), 3);
  EXPECT_EQ(EditDistance("rank", "rank"), 0);
  EXPECT_EQ(EditDistance("rnak", "rank"), 1);
  EXPECT_EQ(EditDistance("kitten", "sitting"), 3);
  EXPECT_EQ(EditDistance("ca", "abc"), 3);  // optimal string alignment: a swapped pair is not edited again
}

TEST_F(RecipeLoad, ContradictionsAreRefused) {
  const struct {
    std::string text, key, message;
  } cases[] = {
      {"log: {wandb: {mode: offline}}", "log.wandb.mode", "has no effect without log.wandb.project"},
      {"log: {wandb: {name: x}}", "log.wandb.name", "has no effect without log.wandb.project"},
      {"log: {wandb: {project: team/x}}", "log.wandb.project",
       "none of / \\ # ? % :, found 'team/x'; the team"},
      {"model: {path: m, config: {}}", "model.path", "contradicts model.config"},
      {"model: {dtype: fp64}", "model.path", "missing; give model.path"},
      {"model: {config: {model_type: gpt2}}", "model.config", "no usable model shape"},
      {"model: {path: m, dtype: fp64, device: cuda}", "model.dtype", "CPU only"},
      {"group: {responses: 1}", "group.responses", "at least 2"},
      {"group: {responses: 5, possibilities: 4}", "group.possibilities", "raise it to at least 5"},
      {"group: {responses: 0, possibilities: 1}", "group.possibilities", "raise it to at least 2"},
      {"adapter: {type: none, init_from: a}", "adapter.init_from", "contradicts adapter.type none"},
      {"early_stop: {enabled: true}", "early_stop.enabled", "distribution_matching"},
      {"early_stop: {gamma: 0.3}", "early_stop.gamma", "has no effect without early_stop.enabled"},
      {"train: {steps: 10}\noptimizer: {warmup_steps: 11}", "optimizer.warmup_steps",
       "more than the 10 steps"},
      {"optimizer: {warmup_steps: 2, warmup_ratio: 0.1}", "optimizer.warmup_ratio",
       "contradicts optimizer.warmup_steps"},
      {"optimizer: {min_lr_rate: 0.2}", "optimizer.min_lr_rate", "unless optimizer.schedule is"},
      {"method: otmft\nloss: {unlikelihood: {alpha: 0.7}}", "loss.unlikelihood.alpha",
       "has no effect with method otmft"},
      {"method: otmft\nloss: {unlikelihood: {mask: all_first}}", "loss.unlikelihood.mask", "has no effect"},
      {"method: otoft\ngroup: {responses: 3}", "group.responses", "takes the first response"},
      {"method: pretrain\ngroup: {possibilities: 3}", "group.possibilities",
       "has no effect with method pretrain"},
      {"method: distribution_matching\nloss: {normalize: sequence_sum}", "loss.normalize", "always sums"},
      {"group: {selection: aligned}", "group.selection", "has no effect without group.assignment aligned"},
      {"group: {assignment: aligned, selection: aligned, responses: 0}", "group.selection",
       "has nothing to choose with group.responses 0"},
      {"method: otmft\ngroup: {assignment: aligned}", "group.assignment", "has no effect with method otmft"},
      {"cvf: {latents: 6}", "cvf.latents", "has no effect with method poexft, which has no latents"},
      {"method: otoft\ncvf: {bow_weight: 0.5}", "cvf.bow_weight", "has no effect with method otoft"},
      {"method: cvf\ncvf: {estimator: exact, temperature: 0.5}", "cvf.temperature",
       "has no effect with cvf.estimator exact"},
      {"method: cvf\ngroup: {possibilities: 3}", "group.possibilities", "has no effect with method cvf"},
      {"validation: {groups: 3}", "validation.groups", "has no effect without data.validation"},
      {"data: {train: d.h5, validation: v.h5}\ngroup: {possibilities: 4}", "validation.responses",
       "group.possibilities is 4; lower it to that"},
      {"name: a/b", "name", "folder name"},
      {"name: ../x", "name", "folder name"},
      {"name: .hidden", "name", "folder name"},
      {"run: {dir: \"\"}", "run.dir", "must not be empty"},
  };
  for (const auto& test : cases) {
    std::string text = test.text + "\n";
    if (!test.text.starts_with("data:")) text += "data: {train: d.h5}\n";
    if (!test.text.starts_with("model:")) text += "model: {path: m}\n";
    const std::string error = ErrorOf(Write("run.yaml", text));
    EXPECT_TRUE(Has(error, ": " + test.key + " ")) << test.text << " -> " << error;
    EXPECT_TRUE(Has(error, test.message)) << test.text << " -> " << error;
    EXPECT_TRUE(error.starts_with((folder_ / "run.yaml").string())) << error;
    EXPECT_FALSE(Has(error, "\n")) << test.text << " -> " << error;
  }
  EXPECT_TRUE(Has(ErrorOf(Write("run.yaml", "model: {path: m}\n")), "data.train missing"));
  EXPECT_TRUE(Has(ErrorOf(Write("run.yaml", "- a\n")), "a recipe is a map of keys"));
  // Setting what is the default anyway is no contradiction: a resolved recipe does so throughout.
  EXPECT_EQ(ErrorOf(WriteRecipe("method: otmft\nloss: {unlikelihood: {alpha: 0.5}}\n")), "accepted");
  EXPECT_EQ(ErrorOf(WriteRecipe("train: {epochs: 3, steps: 5}\n")), "accepted");
  EXPECT_EQ(ErrorOf(WriteRecipe("method: pretrain\nadapter: {type: lora}\n")), "accepted");
}

TEST_F(RecipeLoad, AllProblemsAreListedAtOnce) {
  const std::string error = ErrorOf(WriteRecipe("lora_r: 8\nseed: abc\nearly_stop: {enabled: true}\n"),
                                    {"train.epochs=0", "no equals"});
  EXPECT_TRUE(error.starts_with((folder_ / "run.yaml").string() + " has 5 problems\n")) << error;
  EXPECT_TRUE(Has(error, "\n  " + At("run.yaml", 3) + ": unknown key 'lora_r'")) << error;
  EXPECT_TRUE(Has(error, "\n  " + At("run.yaml", 4) + ": seed must be")) << error;
  EXPECT_TRUE(Has(error, "\n  " + At("run.yaml", 5) + ": early_stop.enabled needs")) << error;
  EXPECT_TRUE(Has(error, "\n  command line 'train.epochs=0': train.epochs must be")) << error;
  EXPECT_TRUE(Has(error, "\n  command line 'no equals': must have the form a.b=c")) << error;
}

TEST_F(RecipeLoad, AValueThatCannotBeReadBreaksNoRuleToo) {
  const std::string error = ErrorOf(Write("run.yaml", "model: {path: [a]}\ndata: {train: d.h5}\n"));
  EXPECT_TRUE(Has(error, "model.path must be text, found a list")) << error;
  EXPECT_FALSE(Has(error, "missing")) << error;
}

TEST_F(RecipeLoad, OverridesTakeTextAsItStands) {
  const fs::path file = WriteRecipe("");
  for (const std::string value : {"a b", "a=b=c", "\"quoted\"", "'x'", "line\nbreak", "$(echo x)",
                                  "#no comment", "a: b", "[not a list]", "*x", "010", "yes", "é"}) {
    const Recipe recipe = LoadRecipe(file, {"run.dir=" + value});
    EXPECT_EQ(recipe.run.dir, value);
    EXPECT_EQ(recipe.origins.at("run.dir"), "command line");
  }
  const Recipe recipe = LoadRecipe(
      file, {"adapter.targets=[v_proj, lm_head]", "optimizer.betas=[0.5, 0.75]", "optimizer.lr=1e-3",
             "optimizer.lr=2e-3", "data.shuffle=false", "train.steps=7", "model.path=null",
             "model.config={model_type: llama, vocab_size: 10, "
             "hidden_size: 8, intermediate_size: 8, num_hidden_layers: 1, num_attention_heads: 2}",
             "model.config.vocab_size=12"});
  EXPECT_EQ(recipe.adapter.settings.targets, (std::vector<std::string>{"v_proj", "lm_head"}));
  EXPECT_EQ(recipe.optimizer.beta2, 0.75);
  EXPECT_EQ(recipe.optimizer.lr, 2e-3) << "the last one wins";
  EXPECT_FALSE(recipe.data.shuffle);
  EXPECT_EQ(recipe.train.steps, 7);
  EXPECT_EQ(recipe.model.path, "");
  EXPECT_EQ(recipe.model.config.at("vocab_size"), 12) << "one entry of the map is replaced";
  EXPECT_EQ(recipe.model.config.at("hidden_size"), 8);
}

TEST_F(RecipeLoad, BadOverridesAreRefused) {
  const fs::path file = WriteRecipe("");
  for (const auto& [text, message] : std::vector<std::pair<std::string, std::string>>{
           {"", "form a.b=c"},
           {"=x", "form a.b=c"},
           {"seed", "form a.b=c"},
           {"seed=", "must be an integer"},
           {"seed=1 2", "must be an integer"},
           {"lora_r=8", "use adapter.rank"},
           {"adapter={rank: 4}", "'adapter' is a section"},
           {"base=x.yaml", "cannot be overridden"},
           {"adapter.targets=q_proj", "a list such as"},
           {"adapter.targets=[q_proj", "is a bracket left open?"},
           {"adapter.targets=&a [q_proj]", "anchors"},
           {"run.dir=\xff", "UTF-8"},
           {"model.config.a.b=1", "inner map"},
           {"model.config.vocab_size=010", "neither a decimal number"},
           {"model.config={tie_word_embeddings: yes}", "neither a decimal number"}}) {
    const std::string error = ErrorOf(file, {text});
    EXPECT_TRUE(error.starts_with("command line '")) << text << " -> " << error;
    EXPECT_TRUE(Has(error, message)) << text << " -> " << error;
    EXPECT_FALSE(Has(error, "\n")) << text << " -> " << error;
  }
}

TEST_F(RecipeLoad, TheResolvedRecipeIsTheSameRecipe) {
  const std::string shape =
      "model: {config: {model_type: llama, architectures: [LlamaForCausalLM], vocab_size: 10, hidden_size: "
      "8, "
      "intermediate_size: 8, num_hidden_layers: 1, num_attention_heads: 2, rms_norm_eps: 1.0e-5, "
      "transformers_version: \"5.23.0\", tie_word_embeddings: true}}\ndata: {train: d.h5}\n";
  for (const std::string text :
       {"model: {path: \"a b: 'c' #d\"}\ndata: {train: \"x\\ty\\\"z\"}\nname: \"2024\"\n",
        "model: {path: m}\ndata: {train: d}\nmethod: distribution_matching\nearly_stop: {enabled: true, "
        "gamma: 0.3}\n",
        "model: {path: m}\ndata: {train: d}\nmethod: otoft\ntrain: {steps: 3, layout: plain}\noptimizer: "
        "{lr: 0.1, betas: [0, 0.3]}\n",
        "model: {path: \"null\"}\ndata: {train: \"true\", validation: ~}\nmethod: pretrain\n",
        shape.c_str()}) {
    const Recipe once = LoadRecipe(Write("run.yaml", text), {});
    const Recipe twice = LoadRecipe(Write("resolved.yaml", once.ResolvedYaml()), {});
    EXPECT_EQ(once.Canonical().dump(), twice.Canonical().dump()) << once.ResolvedYaml();
    const auto keys =
        std::ranges::count_if(Schema(), [&](const Key& key) { return key.BelongsTo(*once.method); });
    EXPECT_EQ(once.Canonical().size(), static_cast<std::size_t>(keys));
  }
}

TEST_F(RecipeLoad, TheResolvedRecipeShowsValuesAndOrigins) {
  const std::string text =
      LoadRecipe(WriteRecipe("optimizer:\n  lr: 1.0e-4\n"), {"adapter.rank=8"}).ResolvedYaml();
  const auto line_of = [&](const std::string& start) {
    const auto begin = text.find(start);
    return begin == std::string::npos ? "" : text.substr(begin, text.find('\n', begin) - begin);
  };
  EXPECT_TRUE(line_of("  lr: 1e-04 ").ends_with("# " + At("run.yaml", 4))) << text;
  EXPECT_TRUE(line_of("  rank: 8 ").ends_with("# command line")) << text;
  EXPECT_TRUE(line_of("  alpha: 32.0 ").ends_with("# default")) << text;
  EXPECT_TRUE(line_of("  unlikelihood:") != "") << text;
  EXPECT_TRUE(line_of("    mask: content_first").ends_with("# default")) << text;
}

// So recipes of the other methods stay the same, to their hash, when a method is added.
TEST_F(RecipeLoad, AKeyThatAMethodDeclaresBelongsToItAlone) {
  for (const Method* method : Methods()) {
    for (const OwnKey& own : method->keys) {
      const std::string name(own.name);
      const std::string set = name + "=" + std::to_string((own.otherwise + own.high) / 2);
      const Recipe recipe = LoadRecipe(WriteRecipe("method: " + std::string(method->name) + "\n"), {set});
      EXPECT_TRUE(recipe.Canonical().contains(name));
      EXPECT_EQ(recipe.SettingsOfMethod().Own(name), (own.otherwise + own.high) / 2);
      const fs::path other = WriteRecipe("method: otmft\n");
      EXPECT_FALSE(LoadRecipe(other, {}).Canonical().contains(name));
      EXPECT_TRUE(Has(ErrorOf(other, {set}), "method " + std::string(method->name) + " alone reads it"));
    }
  }
}

TEST_F(RecipeLoad, SettingsReachTheLabelling) {
  const data::LabelSettings label =
      LoadRecipe(WriteRecipe(
                     "seed: 7\ngroup: {responses: 3, possibilities: 5, max_negatives: 2, assignment: fixed}\n"
                     "loss: {normalize: sequence_sum, unlikelihood: {alpha: 0.25, mask: repo_compat}}\n"),
                 {})
          .SettingsOfMethod()
          .label;
  EXPECT_EQ(label.seed, 7U);
  EXPECT_EQ(label.responses, 3);
  EXPECT_EQ(label.possibilities, 5);
  EXPECT_EQ(label.max_negatives, 2);
  EXPECT_EQ(label.assignment, data::Assignment::kFixed);
  EXPECT_EQ(label.normalization, data::Normalization::kSequenceSum);
  EXPECT_EQ(label.unlikelihood_alpha, 0.25);
  EXPECT_EQ(label.mask, data::MaskMode::kRepoCompat);
}

}  // namespace
}  // namespace plural::trainer
