// quantization_config of a Hugging Face config.json: how a folder's weights were quantised.
//
// Owns: which kinds are read. Does not own: which tensors are quantised; their companions in the
// files say so (nf4_files.h). Thread rule: a pure function.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace plural::trainer {

// Accepts what transformers writes for bitsandbytes' NF4; `where` is the file. Errors: ExitError(kBadData)
// that names any other kind (fp4, 8 bit, gptq, awq and so on).
void RequireNf4Config(const nlohmann::json& config, const std::string& where);

}  // namespace plural::trainer
