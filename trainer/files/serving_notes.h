// What other programs do with a trained adapter, where they lose or refuse a part of it.
//
// Owns: their rules, as far as an adapter of ours can meet them. Does not own: the adapter's files
// (hf_folder.h). Thread rule: any.
#pragma once

#include <string>
#include <vector>

#include "trainer/model/adapter_settings.h"
#include "trainer/model/config.h"

namespace plural::trainer {

// One line per program that will not serve the whole of such an adapter, with what to do. Sources:
// convert_lora_to_gguf.py and the model classes of llama.cpp's convert_hf_to_gguf.py (a tied head's own
// weights are dropped); vLLM, config/lora.py (ranks) and the embedding_modules of its model classes (heads).
std::vector<std::string> ServingNotes(const ModelConfig& config, const AdapterSettings& adapter);

}  // namespace plural::trainer
