// The recipe: everything that decides a run, typed and checked.
//
// Owns: the resolved values, where each came from, the canonical text. Does not own: YAML's syntax
// (yaml_document.h), which keys exist (schema.h). Thread rule: immutable after loading.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "data/labelling.h"
#include "data/rows.h"
#include "trainer/method/method.h"
#include "trainer/model/adapter_settings.h"

namespace plural::trainer {

// What is done with a step whose loss or gradient norm stands out.
enum class SpikeAction { kOff, kWarn, kSkip, kStop };
// What is done when a validation says that the model collapses.
enum class CollapseAction { kOff, kWarn, kLower, kStop };

struct Recipe {
  std::string name;
  const Method* method = &MethodNamed("poexft");
  std::uint64_t seed = 42;
  std::string resume = "auto";  // auto | require | never | the folder of a checkpoint

  struct Run {
    std::string dir = "runs";
    std::int64_t threads = 0;    // compute threads per rank; 0: those granted to it
    bool deterministic = false;  // on a GPU: sums in one order
  } run;

  struct Model {
    std::string path;             // Hugging Face folder; or
    nlohmann::json config;        // the keys of a config.json, for random weights (null: use path)
    std::string dtype = "fp32";   // fp32 | fp64 | bf16
    std::string device = "auto";  // auto | cpu | cuda
    std::string quantize = "none";
  } model;

  struct Adapter {
    bool lora = true;  // type: lora | none
    AdapterSettings settings{.targets = {"q_proj", "k_proj", "v_proj", "lm_head"}};
    std::string init_from;  // adapter folder to start from
  } adapter;

  struct Data {
    std::string train;
    std::string validation;
    bool shuffle = true;
  } data;

  struct Group {
    std::int64_t responses = 4;  // 0: all
    std::int64_t possibilities = 9;
    std::int64_t max_negatives = 0;  // 0: all
    data::Assignment assignment = data::Assignment::kSampled;
    data::Selection selection = data::Selection::kFirst;
  } group;

  struct Loss {
    double unlikelihood_alpha = 0.5;
    data::MaskMode unlikelihood_mask = data::MaskMode::kContentFirst;
    double unlikelihood_clamp = 1e-6;
    data::Normalization normalize = data::Normalization::kGroupTokenMean;
  } loss;

  struct Cvf {                  // cvf only
    std::int64_t latents = 20;  // K
    LatentEstimator estimator = LatentEstimator::kGumbelSoft;
    double temperature = 0.67;        // of the soft Gumbel draw
    double bow_weight = 1.0;          // lambda of the bag-of-words term
    double new_lr_multiplier = 10.0;  // of the latents' own parameters
  } cvf;

  OwnValues own = OwnDefaults();  // of keys that the files of methods declare

  struct EarlyStop {  // distribution_matching only
    bool enabled = false;
    double gamma = 0.2;  // stop after a pass whose summed loss <= (1 + gamma) * summed H(p*)
  } early_stop;

  struct Train {
    std::int64_t epochs = 1;
    std::optional<std::int64_t> steps;  // ends the run earlier or later than epochs would
    std::int64_t groups_per_step = 2;
    data::Layout layout = data::Layout::kTree;
    std::int64_t row_budget = 0;  // small trees share a pass up to so many rows; 0: plan/cost_model.h
    std::string activation_checkpointing = "auto";  // auto | on | off
    std::int64_t activation_bytes = 0;              // of auto; 0: what is free, shared by a machine's ranks
    std::int64_t bucket_bytes = 25 << 20;
    bool canonical = false;  // reduction: canonical, gradients are added in one order on any number of ranks
    std::int64_t log_every_steps = 1;
  } train;

  struct Optimizer {
    double lr = 5e-5;
    double beta1 = 0.9, beta2 = 0.999;
    double eps = 1e-8;
    double weight_decay = 0.0;
    double clip_norm = 0.0;             // 0: off
    std::string schedule = "constant";  // of state/optimizer.h
    std::int64_t warmup_steps = 0;
    double warmup_ratio = 0.0;      // of all steps; 0: warmup_steps
    double min_lr_rate = 0.1;       // of cosine_with_min_lr
    std::string sharding = "auto";  // auto | on | off: each rank keeps the moments of its share only
  } optimizer;

  struct Checkpoint {
    std::int64_t every_steps = 200;  // 0: only at the end
    std::int64_t keep = 3;
    std::string asynchronous = "auto";  // auto | on | off: written while the next steps run
    std::string mirror;                 // folder of second copies
    std::string keep_best = "off";      // off, or the validation's figure whose best stays
  } checkpoint;

  struct Validation {                // on data.validation
    std::int64_t every_steps = 100;  // and after the last step; 0: only there
    std::int64_t groups = 64;        // the corpus's first ones
    std::int64_t responses = 5;      // sampled to each prompt; 0: nothing is sampled
    std::int64_t max_new_tokens = 64;
    double temperature = 1.0;
  } validation;

  struct Guard {  // state/spike_window.h, state/validation_record.h
    SpikeAction spike = SpikeAction::kOff;
    std::int64_t window_steps = 128;
    double factor = 10.0;
    CollapseAction collapse = CollapseAction::kOff;
    double collapse_factor = 2.0;
    std::int64_t replicas_every_steps = 0;  // 0: at checkpoints alone
  } guard;

  struct Watchdog {  // a rank that does one thing for longer ends the job, in seconds
    bool enabled = true;
    double start_seconds = 300.0;
    double load_seconds = 3600.0;
    double step_seconds = 0.0;  // 0: learned from the steps
    double checkpoint_seconds = 1800.0;
    double validation_seconds = 86400.0;
    double nccl_seconds = 1800.0;
  } watchdog;

  struct Profile {
    bool enabled = false;
    std::int64_t after = 3;   // steps of this start before the recorded ones
    std::int64_t steps = 10;  // recorded
  } profile;

  struct Log {  // trackers beside metrics.jsonl; "": not this one
    bool tensorboard = false;
    bool trackio = false;
    struct Wandb {
      std::string project;
      std::string mode = "online";  // online | offline | disabled
      std::string entity, name;     // "": the account's, the run's
    } wandb;

    bool Any() const {
      return tensorboard || trackio || (!wandb.project.empty() && wandb.mode != "disabled");
    }
  } log;

  // "a.b" -> "recipes/x.yaml:12", "command line", "default", "default of otoft" or "file name".
  std::map<std::string, std::string> origins;

  // Whether rank 0 keeps a copy of what a checkpoint is written from.
  bool CopiesCheckpoints() const {
    return checkpoint.every_steps > 0 &&
           (checkpoint.asynchronous == "on" || (checkpoint.asynchronous == "auto" && adapter.lora));
  }
  bool ShardsOptimizer(int ranks) const {
    return ranks > 1 && (optimizer.sharding == "on" || (optimizer.sharding == "auto" && !adapter.lora));
  }
  // Where second copies of checkpoints lie; empty: nowhere.
  std::filesystem::path MirrorFolder() const {
    return checkpoint.mirror.empty() ? std::filesystem::path()
                                     : std::filesystem::path(checkpoint.mirror) / name;
  }
  bool KeepsBest() const { return checkpoint.keep_best != "off"; }
  // Whether `resume` names a checkpoint.
  bool ResumesFromFolder() const { return resume != "auto" && resume != "require" && resume != "never"; }
  std::filesystem::path RunFolder() const { return std::filesystem::path(run.dir) / name; }
  MethodSettings SettingsOfMethod() const;

  // Every key with its value, in schema order, each line ending in a comment with its origin.
  std::string ResolvedYaml() const;
  // Every key with its value, without origins, as one flat object {"adapter.rank": 16, ...}: what decides
  // the run. Equal recipes have equal text, and two recipes differ in the keys whose values differ.
  nlohmann::json Canonical() const;
};

// Reads, inherits (`base`), overrides ("a.b=c", split at the first '=') and checks. All violations are
// listed in one ExitError(kBadRecipe), each with file, line, what is allowed and the nearest known key;
// a missing file is ExitError(kMissingInput).
Recipe LoadRecipe(const std::filesystem::path& file, const std::vector<std::string>& overrides);

}  // namespace plural::trainer
