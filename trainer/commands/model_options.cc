#include "trainer/commands/model_options.h"

#include <ATen/Parallel.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <iostream>
#include <thread>

#include "trainer/error.h"
#include "trainer/model/hf_folder.h"

namespace plural::trainer {

void AddComputeOptions(CLI::App& command, std::string& dtype, std::int64_t& threads) {
  command.add_option("--dtype", dtype, "fp32, bf16 or fp64")
      ->check(CLI::IsMember({"fp32", "bf16", "fp64"}))
      ->capture_default_str();
  command.add_option("--threads", threads, "Compute threads a rank; 0: cores shared by the machine's ranks")
      ->check(CLI::Range(std::int64_t{0}, std::int64_t{4096}))
      ->capture_default_str();
}

void SetThreads(std::int64_t threads, const dist::World& world) {
  if (threads == 0) {
    threads = std::max<std::int64_t>(1, std::thread::hardware_concurrency() / world.LocalSize());
  }
  at::set_num_threads(static_cast<int>(threads));
}

data::Corpus OpenCorpus(const std::string& path, const dist::World& world) {
  data::CorpusLimits limits;
  limits.verify_sidecar = limits.scan_tokens = world.Rank() == 0;
  return data::Corpus(path, limits);
}

bool CheckCorpusFitsModel(const data::Corpus& corpus, const ModelConfig& config,
                          const std::string& model_folder) {
  const data::CorpusInfo& info = corpus.Info();
  if (info.vocab_size > config.vocab_size) {
    throw ExitError(ExitCode::kBadData,
                    corpus.Path().string() + ": its tokenizer has " + std::to_string(info.vocab_size) +
                        " ids, the model's vocabulary " + std::to_string(config.vocab_size) +
                        "; prepare the corpus with the model's tokenizer");
  }
  if (model_folder.empty()) return false;
  const std::string model_tokenizer = TokenizerSha256(model_folder, info.tokenizer_name);
  if (model_tokenizer.empty()) return false;
  if (model_tokenizer != info.tokenizer_sha256) {
    throw ExitError(ExitCode::kBadData,
                    corpus.Path().string() + ": prepared with another tokenizer: " + info.tokenizer_name +
                        " has SHA-256 " + info.tokenizer_sha256 + ", that of " + model_folder + " has " +
                        model_tokenizer + "; prepare the corpus with the model's tokenizer");
  }
  return true;
}

void WarnOfLatents(const Decoder& model, const dist::World& world) {
  if (model.LatentHeads() == nullptr || world.Rank() != 0) return;
  std::cerr
      << "plural: warning: the model was trained with latents (method cvf), and these figures are of "
         "prompts without one; `plural generate --latents` and a validation corpus in training use them\n";
}

}  // namespace plural::trainer
