#include "trainer/files/serving_notes.h"

#include <algorithm>

namespace plural::trainer {
namespace {

constexpr std::int64_t kLargestVllmRank = 512;

// The families whose class in vLLM lists lm_head among its embedding_modules.
bool VllmServesHead(const std::string& model_type) {
  return model_type == "llama" || model_type == "mistral";
}

}  // namespace

std::vector<std::string> ServingNotes(const ModelConfig& config, const AdapterSettings& adapter) {
  std::vector<std::string> notes;
  const auto& targets = adapter.targets;
  const bool head = std::find(targets.begin(), targets.end(), "lm_head") != targets.end();
  if (head && config.tie_word_embeddings) {
    notes.push_back(
        "adapter.targets has lm_head, and the model ties its head to the embedding: llama.cpp's converters "
        "(GGUF) "
        "drop the head's part; leave lm_head out of adapter.targets to serve with llama.cpp");
  }
  if (head && !VllmServesHead(config.model_type)) {
    notes.push_back("adapter.targets has lm_head: vLLM does not serve an adapter of the head of model_type " +
                    config.model_type +
                    "; merge with `plural export`, or leave lm_head out of adapter.targets");
  }
  if (adapter.rank > kLargestVllmRank) {
    notes.push_back("adapter.rank is " + std::to_string(adapter.rank) + ": vLLM serves ranks up to " +
                    std::to_string(kLargestVllmRank) + "; merge with `plural export`, or lower it");
  }
  return notes;
}

}  // namespace plural::trainer
