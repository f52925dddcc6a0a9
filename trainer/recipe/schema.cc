#include "trainer/recipe/schema.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "trainer/recipe/key_makers.h"
#include "trainer/recipe/scalar.h"

namespace plural::trainer {
namespace {

using nlohmann::json;
using namespace key_makers;

// A value beyond these is a typing error: the memory or time that it asks for does not exist.
constexpr double kMaxRank = 4096;
constexpr double kMaxCount = 1e12;
constexpr double kMaxResponses = 1e6;
constexpr double kMaxLatents = 4096;

Words<const Method*> MethodWords() {
  Words<const Method*> words;
  for (const Method* method : Methods()) {
    words.emplace_back(method->name, method);
    if (!method->other_name.empty()) words.emplace_back(method->other_name, method);
  }
  return words;
}

Key OwnKeyOf(const Method& method, const OwnKey& own) {
  Key key = MakeKey(
      std::string(own.name).c_str(), KeyType::kNumber,
      [name = std::string(own.name)](auto& recipe) -> auto& { return recipe.own.find(name)->second; }, "");
  key.meaning = std::string(own.meaning) + " (`" + std::string(method.name) + "`)";
  key.range = {.low = own.low, .high = own.high, .low_open = own.low_open};
  key.method = &method;
  return key;
}

// Each behind the last key of its section, or at the end.
void AddOwnKeys(std::vector<Key>& keys) {
  for (const Method* method : Methods()) {
    for (const OwnKey& own : method->keys) {
      Key key = OwnKeyOf(*method, own);
      const std::string section = key.Section().substr(0, key.Section().find('.') + 1);
      const auto last = std::find_if(keys.rbegin(), keys.rend(), [&](const Key& other) {
        return !section.empty() && other.name.starts_with(section);
      });
      keys.insert(last == keys.rend() ? keys.end() : last.base(), std::move(key));
    }
  }
}

#define FIELD(place) \
  [](auto& recipe) -> auto& { return recipe.place; }

std::vector<Key> MakeKeys() {
  std::vector<Key> keys;
  const auto add = [&](Key key) { keys.push_back(std::move(key)); };

  add(Text("name", FIELD(name), "name of the run and of its folder below `run.dir`"));
  add(Word("method", MethodWords(), FIELD(method), "training method; `peft` is another word for `poexft`"));
  add(MakeKey("seed", KeyType::kInteger, FIELD(seed), "every random draw derives from it"));
  keys.back().range = Between(0, 9.2e18);
  add(Text(
      "resume", FIELD(resume),
      "`auto`: goes on from the run's newest checkpoint, where there is one; `require`: only so; `never`: "
      "only where there is neither a checkpoint nor a result; the folder of a checkpoint of another run: "
      "begins there"));

  add(Text("run.dir", FIELD(run.dir), "folder that holds the run folders"));
  add(Integer(
      "run.threads", Between(0, 4096), FIELD(run.threads),
      "compute threads per rank; 0: `OMP_NUM_THREADS`, or the cores that the rank may use / ranks on them"));
  add(Boolean(
      "run.deterministic", FIELD(run.deterministic),
      "on a GPU, sum in one order everywhere, so that a resumed run repeats its bits on the same card "
      "and number of ranks; slower. On CPUs that is so without it"));

  add(Text("model.path", FIELD(model.path),
           "Hugging Face folder with `config.json` and `*.safetensors`, or a name of the Hub that has been "
           "downloaded (`docs/models.md`); give this or `model.config`"));
  Key config = MakeKey("model.config", KeyType::kModelConfig, FIELD(model.config),
                       "the keys of a `config.json`: a model with random weights drawn from `seed`");
  add(std::move(config));
  add(Word(
      "model.dtype", Same({"fp32", "bf16", "fp64"}), FIELD(model.dtype),
      "type of weights and activations; what is trained beside `bf16` is kept in fp32; `fp64` on the CPU, "
      "for tests"));
  add(Word("model.device", Same({"auto", "cpu", "cuda"}), FIELD(model.device),
           "`auto`: a GPU if there is one for every rank"));
  add(Word(
      "model.quantize", Same({"none", "nf4"}), FIELD(model.quantize),
      "`nf4`: the frozen linear weights of the layers in 4 bits (QLoRA); `none`: as the folder has them"));

  add(Word("adapter.type", Words<bool>{{"lora", true}, {"none", false}}, FIELD(adapter.lora),
           "`lora` trains an adapter, `none` trains all weights"));
  add(Integer("adapter.rank", Between(1, kMaxRank), FIELD(adapter.settings.rank), "LoRA rank r"));
  add(Number("adapter.alpha", Above(0), FIELD(adapter.settings.alpha),
             "LoRA alpha: the adapter is scaled by alpha / rank"));
  add(Number("adapter.dropout", UnitInterval(), FIELD(adapter.settings.dropout),
             "dropout on the adapter's input"));
  Key targets = MakeKey("adapter.targets", KeyType::kWords, FIELD(adapter.settings.targets),
                        "linear layers with an adapter");
  targets.words = {"q_proj",    "k_proj",  "v_proj",    "qkv_proj",     "o_proj",
                   "gate_proj", "up_proj", "down_proj", "gate_up_proj", "lm_head"};
  add(std::move(targets));
  add(Text("adapter.init_from", FIELD(adapter.init_from),
           "adapter folder to start from (Hugging Face PEFT format)"));

  add(Text("data.train", FIELD(data.train), "corpus to train on, made by `plural prepare`"));
  add(Text("data.validation", FIELD(data.validation), "corpus to measure on while training"));
  add(Boolean("data.shuffle", FIELD(data.shuffle), "a new order of the groups each epoch"));

  add(Integer("group.responses", Between(0, kMaxResponses), FIELD(group.responses),
              "responses used of each group, N; 0: all"));
  add(Integer("group.possibilities", Between(0, kMaxResponses), FIELD(group.possibilities),
              "largest possibility number, M (`poexft`)"));
  add(Integer("group.max_negatives", Between(0, 1e9), FIELD(group.max_negatives),
              "keep at most so many of the N(N-1) negatives; 0: all (`poexft`)"));
  add(Word("group.assignment",
           Words<data::Assignment>{{"sampled", data::Assignment::kSampled},
                                   {"fixed", data::Assignment::kFixed},
                                   {"sequential", data::Assignment::kSequential},
                                   {"aligned", data::Assignment::kAligned}},
           FIELD(group.assignment),
           "possibility numbers: drawn anew each epoch, once per group, k_i = i, or of the kind the response "
           "is, by a corpus made with `--align` (`poexft`)"));
  add(Word(
      "group.selection",
      Words<data::Selection>{{"first", data::Selection::kFirst}, {"aligned", data::Selection::kAligned}},
      FIELD(group.selection),
      "which N of more responses are used: the first, or those that suit N different numbers best (`poexft` "
      "with `group.assignment: aligned`)"));

  add(Number("loss.unlikelihood.alpha", Between(0, 1e6), FIELD(loss.unlikelihood_alpha),
             "weight of the unlikelihood term (`poexft`)"));
  add(Word("loss.unlikelihood.mask",
           Words<data::MaskMode>{{"content_first", data::MaskMode::kContentFirst},
                                 {"all_first", data::MaskMode::kAllFirst},
                                 {"repo_compat", data::MaskMode::kRepoCompat}},
           FIELD(loss.unlikelihood_mask), "which tokens of a negative are penalised (`poexft`)"));
  add(Number("loss.unlikelihood.clamp", UnitInterval(), FIELD(loss.unlikelihood_clamp),
             "-log(1-p) is cut at -log(clamp), without gradient beyond; 0: no cut (`poexft`)"));
  add(Word("loss.normalize",
           Words<data::Normalization>{{"group_token_mean", data::Normalization::kGroupTokenMean},
                                      {"sequence_sum", data::Normalization::kSequenceSum}},
           FIELD(loss.normalize),
           "how token losses of a group become one number; `distribution_matching` always sums a target's "
           "tokens"));

  add(Integer("cvf.latents", Between(2, kMaxLatents), FIELD(cvf.latents), "latents, K (`cvf`)"));
  add(Word("cvf.estimator",
           Words<LatentEstimator>{{"gumbel_soft", LatentEstimator::kGumbelSoft},
                                  {"exact", LatentEstimator::kExact}},
           FIELD(cvf.estimator),
           "`gumbel_soft`: one soft draw per response; `exact`: the expectation over all latents, for few of "
           "them (`cvf`)"));
  add(Number("cvf.temperature", Above(0), FIELD(cvf.temperature), "of the soft draw (`cvf`)"));
  add(Number("cvf.bow_weight", Between(0, 1e6), FIELD(cvf.bow_weight),
             "weight of the bag-of-words term (`cvf`)"));
  add(Number("cvf.new_lr_multiplier", Above(0), FIELD(cvf.new_lr_multiplier),
             "learning rate of the latents' own parameters, times `optimizer.lr` (`cvf`)"));

  add(Boolean("early_stop.enabled", FIELD(early_stop.enabled),
              "stop after an epoch whose summed loss <= (1 + gamma) * summed target entropy "
              "(`distribution_matching`)"));
  add(Number("early_stop.gamma", AtLeast(0), FIELD(early_stop.gamma), "see `early_stop.enabled`"));

  add(Integer("train.epochs", Between(1, 1e6), FIELD(train.epochs),
              "how often the whole corpus is trained on"));
  Key steps;
  steps.name = "train.steps";
  steps.type = KeyType::kInteger;
  steps.range = Between(1, kMaxCount);
  steps.meaning = "optimizer steps of the whole run; where given it wins over `train.epochs`";
  steps.assign = [](Recipe& recipe, const json& value) {
    recipe.train.steps.reset();
    if (!value.is_null()) recipe.train.steps = value.get<std::int64_t>();
  };
  steps.read = [](const Recipe& recipe) { return recipe.train.steps ? json(*recipe.train.steps) : json(); };
  add(std::move(steps));
  add(Integer("train.groups_per_step", Between(1, 1e9), FIELD(train.groups_per_step),
              "groups of one optimizer step over all ranks together"));
  add(Word("train.layout",
           Words<data::Layout>{{"tree", data::Layout::kTree}, {"plain", data::Layout::kPlain}},
           FIELD(train.layout),
           "`tree` computes shared tokens once; `plain` is one row per sequence, to compare with"));
  add(Integer(
      "train.row_budget", Between(0, 1e9), FIELD(train.row_budget),
      "small trees share one forward pass up to so many rows: memory and speed, not the objective; "
      "0: 1024, on a GPU whose attention skips what rows do not see 8192, but for plain rows and `cvf`"));
  add(Word("train.activation_checkpointing", Same({"auto", "on", "off"}),
           FIELD(train.activation_checkpointing),
           "`on`: layers keep their inputs only and are computed again in backward; `auto`: in passes whose "
           "activations exceed `train.activation_bytes`. Less memory, the same numbers, a third more time"));
  add(Integer(
      "train.activation_bytes", Between(0, 1e18), FIELD(train.activation_bytes),
      "bytes of one rank's activations; 0: what is free when training starts, shared by the machine's "
      "ranks"));
  add(Word(
      "train.reduction", Words<bool>{{"fast", false}, {"canonical", true}}, FIELD(train.canonical),
      "how gradients are added: `canonical` in one order of the groups, so that any number of ranks gives "
      "the same bits, with passes that no two groups share"));
  add(Integer("train.bucket_bytes", Between(1, kMaxCount), FIELD(train.bucket_bytes),
              "gradients are summed over ranks in pieces of about so many bytes"));
  add(Integer("train.log_every_steps", Between(1, kMaxCount), FIELD(train.log_every_steps),
              "steps between the step lines of `metrics.jsonl`; the last step always has one"));

  add(Number("optimizer.lr", Above(0), FIELD(optimizer.lr), "learning rate of AdamW"));
  Key betas;
  betas.name = "optimizer.betas";
  betas.type = KeyType::kNumberPair;
  betas.range = UnitInterval();
  betas.meaning = "AdamW's decay of the gradient's first and second moment";
  betas.assign = [](Recipe& recipe, const json& value) {
    recipe.optimizer.beta1 = value.at(0);
    recipe.optimizer.beta2 = value.at(1);
  };
  betas.read = [](const Recipe& recipe) { return json{recipe.optimizer.beta1, recipe.optimizer.beta2}; };
  add(std::move(betas));
  add(Number("optimizer.eps", Above(0), FIELD(optimizer.eps), "AdamW's epsilon"));
  add(Number("optimizer.weight_decay", AtLeast(0), FIELD(optimizer.weight_decay), "decoupled weight decay"));
  add(Number("optimizer.clip_norm", AtLeast(0), FIELD(optimizer.clip_norm),
             "largest global gradient norm; 0: no clipping"));
  add(Word("optimizer.schedule", Same({"constant", "linear", "cosine", "cosine_with_min_lr", "inverse_sqrt"}),
           FIELD(optimizer.schedule),
           "learning rate after the warm-up, as in transformers; `linear` and `cosine` fall to 0 at the last "
           "step, `cosine_with_min_lr` to `optimizer.min_lr_rate` of `optimizer.lr`, `inverse_sqrt` with the "
           "root of the step"));
  add(Integer("optimizer.warmup_steps", Between(0, kMaxCount), FIELD(optimizer.warmup_steps),
              "steps over which the learning rate rises from 0"));
  add(Number("optimizer.warmup_ratio", Range{.low = 0, .high = 1, .high_open = true},
             FIELD(optimizer.warmup_ratio),
             "the same as a share of all steps, rounded up; instead of `optimizer.warmup_steps`"));
  add(Number("optimizer.min_lr_rate", Range{.low = 0, .high = 1, .high_open = true},
             FIELD(optimizer.min_lr_rate), "where `cosine_with_min_lr` ends, as a share of `optimizer.lr`"));
  add(Word("optimizer.sharding", Same({"auto", "on", "off"}), FIELD(optimizer.sharding),
           "`on`: each rank keeps AdamW's moments of its share of the parameters only (ZeRO stage 1), and "
           "updates these; `auto`: where all weights are trained. Less memory, the same numbers"));

  add(Integer("checkpoint.every_steps", Between(0, kMaxCount), FIELD(checkpoint.every_steps),
              "0: only at the end"));
  add(Integer("checkpoint.keep", Between(1, 1e6), FIELD(checkpoint.keep), "checkpoints kept, newest first"));
  add(Word("checkpoint.asynchronous", Same({"auto", "on", "off"}), FIELD(checkpoint.asynchronous),
           "`on`: a copy is written while the next steps run, one at a time; `off`: the run waits, without a "
           "copy; `auto`: `on` for adapters"));
  add(Text("checkpoint.mirror", FIELD(checkpoint.mirror),
           "folder that gets, in a folder of the run's `name`, a second copy of each checkpoint, for a start "
           "that finds the first one damaged or gone; what goes wrong there ends no run"));
  add(Word("checkpoint.keep_best", Same({"off", "loss", "perplexity", "kl_nats"}),
           FIELD(checkpoint.keep_best),
           "a validation whose figure is the lowest so far is followed by a checkpoint, which stays beside "
           "the newest ones until there is a better one"));

  add(Integer("validation.every_steps", Between(0, kMaxCount), FIELD(validation.every_steps),
              "measure on `data.validation` so often, and after the last step; 0: only there"));
  add(Integer("validation.groups", Between(1, 1e9), FIELD(validation.groups),
              "groups measured on, the corpus's first ones"));
  add(Integer("validation.responses", Between(0, 1e4), FIELD(validation.responses),
              "responses sampled to each prompt, for what they differ in; 0: none"));
  add(Integer("validation.max_new_tokens", Between(1, 1e6), FIELD(validation.max_new_tokens),
              "tokens of a sampled response at most"));
  add(Number("validation.temperature", AtLeast(0), FIELD(validation.temperature),
             "of those samples; 0: the most likely token"));

  add(Word("guard.spike",
           Words<SpikeAction>{{"off", SpikeAction::kOff},
                              {"warn", SpikeAction::kWarn},
                              {"skip", SpikeAction::kSkip},
                              {"stop", SpikeAction::kStop}},
           FIELD(guard.spike),
           "a step whose gradient norm or loss is more than `guard.factor` times its median: `warn` makes it "
           "and says so, `skip` leaves it out, `stop` saves the state before it and ends with 77"));
  add(Integer(
      "guard.window_steps", Between(4, 65536), FIELD(guard.window_steps),
      "steps that the medians are of, the last ones that were made; half of them come before the first "
      "judgement"));
  add(Number("guard.factor", Above(1), FIELD(guard.factor), "see `guard.spike`"));
  add(Word(
      "guard.collapse",
      Words<CollapseAction>{{"off", CollapseAction::kOff},
                            {"warn", CollapseAction::kWarn},
                            {"lower", CollapseAction::kLower},
                            {"stop", CollapseAction::kStop}},
      FIELD(guard.collapse),
      "a validation with a figure `guard.collapse_factor` times worse than its best: `warn` says so, "
      "`lower` halves the unlikelihood weight for the steps that follow, `stop` saves the state and ends "
      "with 77"));
  add(Number("guard.collapse_factor", Above(1), FIELD(guard.collapse_factor), "see `guard.collapse`"));
  add(Integer("guard.replicas_every_steps", Between(0, kMaxCount), FIELD(guard.replicas_every_steps),
              "steps between comparisons of all ranks' parameters and moments, by hash; 0: with each "
              "checkpoint alone"));

  add(Boolean(
      "watchdog.enabled", FIELD(watchdog.enabled),
      "end a job that hangs with exit code 76; off, a rank may be stopped and looked at for as long as "
      "one likes"));
  const Range second = AtLeast(1);
  add(Number("watchdog.start_seconds", second, FIELD(watchdog.start_seconds),
             "how long MPI may look for the ranks, and end"));
  add(Number("watchdog.load_seconds", second, FIELD(watchdog.load_seconds),
             "how long a rank may do one thing while it loads, or in its first five steps"));
  add(Number(
      "watchdog.step_seconds", AtLeast(0), FIELD(watchdog.step_seconds),
      "how long it may wait for data, compute, or wait for the sum in a step; 0: ten times the longest "
      "step so far, at least 120"));
  add(Number("watchdog.checkpoint_seconds", second, FIELD(watchdog.checkpoint_seconds),
             "how long writing a checkpoint or the result may take"));
  add(Number("watchdog.validation_seconds", second, FIELD(watchdog.validation_seconds),
             "how long a validation may take"));
  add(Number("watchdog.nccl_seconds", second, FIELD(watchdog.nccl_seconds),
             "how long a rank may wait for the others within NCCL, on GPUs"));

  add(Boolean("profile.enabled", FIELD(profile.enabled),
              "write a trace and a table of where the time of some steps went"));
  add(Integer("profile.after", Between(0, kMaxCount), FIELD(profile.after),
              "steps of this start before the recorded ones"));
  add(Integer("profile.steps", Between(1, 1e4), FIELD(profile.steps), "recorded steps"));

  add(Boolean("log.tensorboard", FIELD(log.tensorboard),
              "event files for TensorBoard in `log/tensorboard` of the run's folder, while it trains"));
  add(Boolean(
      "log.trackio", FIELD(log.trackio),
      "figures into trackio's store of this user, or of the variable `TRACKIO_DIR`, while it trains"));
  add(Text("log.wandb.project", FIELD(log.wandb.project),
           "project of Weights & Biases that gets the run's figures while it trains; `null`: none does"));
  add(Word("log.wandb.mode", Same({"online", "offline", "disabled"}), FIELD(log.wandb.mode),
           "`offline`: into `log/wandb` of the run's folder, for `wandb sync`; `disabled`: nothing is sent"));
  add(Text("log.wandb.entity", FIELD(log.wandb.entity),
           "user or team of Weights & Biases; `null`: the account's own"));
  add(Text("log.wandb.name", FIELD(log.wandb.name), "name of the run there; `null`: `name`"));
  AddOwnKeys(keys);
  return keys;
}

#undef FIELD

}  // namespace

const std::vector<Key>& Schema() {
  static const std::vector<Key> keys = MakeKeys();
  return keys;
}

const Key* FindKey(std::string_view name) {
  const auto it =
      std::find_if(Schema().begin(), Schema().end(), [&](const Key& key) { return key.name == name; });
  return it == Schema().end() ? nullptr : &*it;
}

const Key* FindSwitch(std::string_view section) {
  const Key* key = FindKey(std::string(section) + ".enabled");
  return key != nullptr && key->type == KeyType::kBoolean ? key : nullptr;
}

bool IsSection(std::string_view name) {
  const std::string prefix = std::string(name) + ".";
  return std::any_of(Schema().begin(), Schema().end(),
                     [&](const Key& key) { return key.name.compare(0, prefix.size(), prefix) == 0; });
}

json DefaultOf(const Key& key, const Method& method) {
  for (const KeyDefault& other : method.defaults) {
    if (other.key == key.name) return json::parse(other.json);
  }
  return key.read(Recipe{});
}

}  // namespace plural::trainer
