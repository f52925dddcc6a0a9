#include "trainer/recipe/suggest.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <utility>
#include <vector>

#include "trainer/recipe/schema.h"

namespace plural::trainer {
namespace {

struct ForeignName {
  std::string_view name;
  std::string_view advice;  // a key of ours, or a sentence
};

constexpr std::string_view kAccumulation =
    "use train.groups_per_step: it counts the groups of one optimizer step over all ranks, so there is "
    "nothing to accumulate";
constexpr std::string_view kPrepare = "set when the corpus is made: see `plural prepare --help`";
constexpr std::string_view kNoPacking =
    "not needed: sequences of a group share their tokens, see train.layout";
constexpr std::string_view kAlwaysResumes =
    "not needed: `plural train` continues the run that its folder holds";
constexpr std::string_view kOtherCheckpoint =
    "not needed: `plural train` continues the run that its folder holds; resume names another run's "
    "checkpoint";
constexpr std::string_view kOnlyAdamW = "not needed: AdamW is the optimizer";

constexpr std::string_view kFourBits = "use model.quantize: nf4 holds the weights in 4 bits";
constexpr std::string_view kMicroBatch =
    "not needed: train.groups_per_step counts the groups of one optimizer step over all ranks, and "
    "train.row_budget bounds what one pass holds";
constexpr std::string_view kNoTracker =
    "there is none: metrics.jsonl in the run's folder has every figure, for any program that plots";
constexpr std::string_view kTrackers = "use log.tensorboard: true or log.wandb.project";
constexpr std::string_view kNoUpload =
    "there is none: figures and the recipe are sent (log.wandb.project), the result stays in its folder";
constexpr std::string_view kOneRun = "not needed: the run's folder remembers the run of log.wandb.project";
constexpr std::string_view kNoHub = "there is none: the result is a folder, upload it with `hf upload`";
constexpr std::string_view kValidation =
    "name a corpus with data.validation; validation.every_steps says how often it is measured";
constexpr std::string_view kDatasets = "set data.train to the corpus that `plural prepare` makes of it";
constexpr std::string_view kAttention = "not needed: the program has attention kernels of its own";
constexpr std::string_view kStage =
    "use method: poexft for many answers, otoft for supervised fine-tuning, pretrain for text";
constexpr std::string_view kSharded =
    "use optimizer.sharding: each rank keeps its share of AdamW's moments (ZeRO stage 1); every rank holds "
    "the "
    "whole model";

// Words of axolotl, LLaMA-Factory, TRL (transformers), torchtune and PEFT.
constexpr auto kForeignNames = std::to_array<ForeignName>({
    {"wandb_project", "log.wandb.project"},
    {"wandb_mode", "log.wandb.mode"},
    {"wandb_entity", "log.wandb.entity"},
    {"wandb_name", "log.wandb.name"},
    {"wandb_run_id", kOneRun},
    {"wandb_log_model", kNoUpload},
    {"use_wandb", "log.wandb.project"},
    {"report_to", kTrackers},
    {"use_tensorboard", "log.tensorboard"},
    {"logging_dir", "not needed: log.tensorboard writes into log/tensorboard of the run's folder"},
    {"trackio_space_id", kNoTracker},
    {"mlflow_tracking_uri", kNoTracker},
    {"plot_loss", kNoTracker},
    {"push_to_hub", kNoHub},
    {"hub_model_id", kNoHub},
    {"eval_strategy", kValidation},
    {"evaluation_strategy", kValidation},
    {"eval_steps", "validation.every_steps"},
    {"evals_per_epoch", "validation.every_steps"},
    {"do_eval", kValidation},
    {"do_train", "not needed: `plural train` trains"},
    {"stage", kStage},
    {"rl", kStage},
    {"dataset_name", kDatasets},
    {"dataset_dir", kDatasets},
    {"dataset_path", kDatasets},
    {"flash_attention", kAttention},
    {"flash_attn", kAttention},
    {"attn_implementation", kAttention},
    {"sdp_attention", kAttention},
    {"deepspeed", kSharded},
    {"fsdp", kSharded},
    {"fsdp_config", kSharded},
    {"zero_optimization", kSharded},
    {"zero_stage", kSharded},
    {"use_distributed_optimizer", kSharded},
    {"base_model", "model.path"},
    {"model_name_or_path", "model.path"},
    {"model_name", "model.path"},
    {"pretrained_model_name_or_path", "model.path"},
    {"checkpoint_dir", "model.path"},
    {"torch_dtype", "model.dtype"},
    {"precision", "model.dtype"},
    {"bf16", "model.dtype"},
    {"fp16", "model.dtype"},
    {"load_in_4bit", kFourBits},
    {"load_in_8bit", "8 bits are not supported; model.quantize: nf4 holds the weights in 4"},
    {"quantization_bit", kFourBits},
    {"quantization", "model.quantize"},
    {"quant", "model.quantize"},
    {"lora", "adapter"},
    {"peft_config", "adapter"},
    {"finetuning_type", "adapter.type"},
    {"use_peft", "adapter.type"},
    {"r", "adapter.rank"},
    {"lora_r", "adapter.rank"},
    {"lora_rank", "adapter.rank"},
    {"lora_alpha", "adapter.alpha"},
    {"lora_dropout", "adapter.dropout"},
    {"lora_target", "adapter.targets"},
    {"lora_target_modules", "adapter.targets"},
    {"target_modules", "adapter.targets"},
    {"lora_attn_modules", "adapter.targets"},
    {"lora_model_dir", "adapter.init_from"},
    {"adapter_name_or_path", "adapter.init_from"},
    {"dataset", "data.train"},
    {"datasets", "data.train"},
    {"train_file", "data.train"},
    {"train_dataset", "data.train"},
    {"val_set_size", "data.validation"},
    {"test_datasets", "data.validation"},
    {"eval_dataset", "data.validation"},
    {"validation_file", "data.validation"},
    {"sequence_len", kPrepare},
    {"cutoff_len", kPrepare},
    {"max_length", kPrepare},
    {"max_seq_length", kPrepare},
    {"max_seq_len", kPrepare},
    {"chat_template", kPrepare},
    {"template", kPrepare},
    {"tokenizer", kPrepare},
    {"sample_packing", kNoPacking},
    {"packing", kNoPacking},
    {"packed", kNoPacking},
    {"num_epochs", "train.epochs"},
    {"num_train_epochs", "train.epochs"},
    {"max_steps", "train.steps"},
    {"max_steps_per_epoch", "train.steps"},
    {"batch_size", "train.groups_per_step"},
    {"micro_batch_size", kMicroBatch},
    {"global_batch_size", "train.groups_per_step"},
    {"per_device_train_batch_size", kMicroBatch},
    {"gradient_accumulation_steps", kAccumulation},
    {"gradient_checkpointing", "train.activation_checkpointing"},
    {"disable_gradient_checkpointing", "train.activation_checkpointing"},
    {"enable_activation_checkpointing", "train.activation_checkpointing"},
    {"logging_steps", "train.log_every_steps"},
    {"log_every_n_steps", "train.log_every_steps"},
    {"optim", "optimizer"},
    {"learning_rate", "optimizer.lr"},
    {"adam_beta1", "optimizer.betas"},
    {"adam_beta2", "optimizer.betas"},
    {"adam_epsilon", "optimizer.eps"},
    {"max_grad_norm", "optimizer.clip_norm"},
    {"clip_grad_norm", "optimizer.clip_norm"},
    {"gradient_clipping", "optimizer.clip_norm"},
    {"lr_scheduler", "optimizer.schedule"},
    {"lr_scheduler_type", "optimizer.schedule"},
    {"num_warmup_steps", "optimizer.warmup_steps"},
    {"min_lr", "optimizer.min_lr_rate"},
    {"cosine_min_lr_ratio", "optimizer.min_lr_rate"},
    {"lr_scheduler_kwargs", "give what it holds as keys of optimizer, such as optimizer.min_lr_rate"},
    {"_component_", kOnlyAdamW},
    {"output_dir", "run.dir"},
    {"run_name", "name"},
    {"num_threads", "run.threads"},
    {"ddp_timeout", "watchdog.step_seconds"},
    {"nccl_timeout", "watchdog.nccl_seconds"},
    {"loss_watchdog_threshold", "guard.spike"},
    {"save_steps", "checkpoint.every_steps"},
    {"saves_per_epoch", "checkpoint.every_steps"},
    {"save_total_limit", "checkpoint.keep"},
    {"resume_from_checkpoint", kOtherCheckpoint},
    {"overwrite_output_dir", kAlwaysResumes},
    {"random_seed", "seed"},
    {"responses_per_prompt", "group.responses"},
    {"num_responses", "group.responses"},
    {"possibility_max", "group.possibilities"},
    {"max_num_negatives_per_sample", "group.max_negatives"},
    {"ul_alpha", "loss.unlikelihood.alpha"},
    {"ul_clamp", "loss.unlikelihood.clamp"},
    {"ul_mask", "loss.unlikelihood.mask"},
});

// Case and dashes are the commonest slips.
std::string Plain(std::string_view name) {
  std::string out(name);
  for (char& c : out) c = c == '-' ? '_' : static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return out;
}

std::string LastPart(std::string_view name) {
  const auto dot = name.rfind('.');
  return std::string(dot == std::string_view::npos ? name : name.substr(dot + 1));
}

// The longest part of `name`, from the left, that is a section: "adapter" of "adapter.x.y", "" of "x".
std::string KnownSection(const std::string& name) {
  for (auto dot = name.rfind('.'); dot != std::string::npos && dot > 0; dot = name.rfind('.', dot - 1)) {
    if (IsSection(name.substr(0, dot))) return name.substr(0, dot);
  }
  return "";
}

}  // namespace

std::string KnownKeys(const std::string& section) {
  const std::string prefix = section.empty() ? "" : section + ".";
  std::string out = section.empty() ? "known keys: base" : "keys of " + section + ":";
  std::string previous;
  for (const Key& key : Schema()) {
    if (!key.name.starts_with(prefix)) continue;
    const std::string rest = key.name.substr(prefix.size());
    const std::string first = rest.substr(0, rest.find('.'));
    if (first == previous) continue;
    out += (out.back() == ':' ? " " : ", ") + first;
    previous = first;
  }
  return out;
}

int EditDistance(std::string_view a, std::string_view b) {
  std::vector<int> before(b.size() + 1), above(b.size() + 1), row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) above[j] = static_cast<int>(j);
  for (std::size_t i = 1; i <= a.size(); ++i) {
    row[0] = static_cast<int>(i);
    for (std::size_t j = 1; j <= b.size(); ++j) {
      row[j] = std::min({above[j] + 1, row[j - 1] + 1, above[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1)});
      const bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
      if (swapped) row[j] = std::min(row[j], before[j - 2] + 1);
    }
    std::swap(before, above);
    std::swap(above, row);
  }
  return above[b.size()];
}

std::string Suggest(const std::string& name) {
  const std::string section = KnownSection(name);
  const std::string keys = KnownKeys(section);
  // Longer words are nobody's typing slip, and distances cost their length.
  constexpr std::size_t kLongestName = 80;
  if (name.size() > kLongestName) return keys;

  const std::string plain = Plain(name);
  const std::string last = LastPart(plain);
  if (FindKey(plain) != nullptr) return "use " + plain;
  for (const ForeignName& foreign : kForeignNames) {
    if (last != foreign.name) continue;
    const bool is_ours = FindKey(foreign.advice) != nullptr || IsSection(foreign.advice);
    return (is_ours ? "use " : "") + std::string(foreign.advice);
  }

  // Nearest by the whole name or by its last part; the same section wins a tie.
  std::vector<std::string> known;
  for (const Key& key : Schema()) known.push_back(key.name);
  for (const Key& key : Schema()) {
    for (auto dot = key.name.find('.'); dot != std::string::npos; dot = key.name.find('.', dot + 1)) {
      const std::string part = key.name.substr(0, dot);
      if (std::find(known.begin(), known.end(), part) == known.end()) known.push_back(part);
    }
  }
  std::string best;
  std::pair<int, bool> best_rank = {1000, true};
  for (const std::string& candidate : known) {
    const int distance = std::min(EditDistance(plain, candidate), EditDistance(last, LastPart(candidate)));
    const bool elsewhere = !candidate.starts_with(section);
    if (std::pair(distance, elsewhere) < best_rank) {
      best_rank = {distance, elsewhere};
      best = candidate;
    }
  }
  const int allowed = std::max(1, static_cast<int>(last.size()) / 3);
  if (best_rank.first <= allowed) return "did you mean " + best + "?";
  return keys;
}

}  // namespace plural::trainer
