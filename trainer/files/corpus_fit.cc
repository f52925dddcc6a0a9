#include "trainer/files/corpus_fit.h"

#include "trainer/base/error.h"
#include "trainer/files/hf_folder.h"

namespace plural::trainer {

data::Corpus OpenCorpus(const std::string& path, const dist::World& world) {
  data::CorpusLimits limits;
  limits.verify_sidecar = limits.scan_tokens = world.Rank() == 0;
  return data::Corpus(path, limits);
}

bool CheckCorpusFitsModel(const data::Corpus& corpus, const ModelConfig& config,
                          const std::string& model_folder) {
  const data::CorpusInfo& info = corpus.Info();
  if (info.largest_token >= config.vocab_size) {
    throw ExitError(ExitCode::kBadData,
                    corpus.Path().string() + ": uses token ids up to " + std::to_string(info.largest_token) +
                        ", the model's vocabulary has " + std::to_string(config.vocab_size) +
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

void RequireWithinContext(const data::Corpus& corpus, data::Corpus::Longest longest,
                          const ModelConfig& config, bool latent) {
  if (latent) ++longest.tokens;
  if (longest.tokens <= config.max_position_embeddings) return;
  throw ExitError(ExitCode::kBadData, corpus.Path().string() + ": group " + std::to_string(longest.group) +
                                          " has a sequence of " + std::to_string(longest.tokens) + " tokens" +
                                          (latent ? ", the latent included" : "") + "; the model takes " +
                                          std::to_string(config.max_position_embeddings) +
                                          " (max_position_embeddings); shorten it or leave it out");
}

}  // namespace plural::trainer
