// A model ready for use, from its folder and perhaps an adapter's.
//
// Owns: the order of loading. Does not own: files (hf_folder.h). Thread rule: one thread.
#pragma once

#include <ATen/core/TensorBody.h>

#include <string>

#include "trainer/model/decoder.h"

namespace plural::trainer {

// `adapter_dir` may be empty. Latents of method cvf come with the adapter, or with a model trained without
// one. For inference: nothing requires a gradient.
// Errors: those of ModelConfig::FromFolder, LoadBaseWeights, PeftConfig, AttachAdapter, LatentsIn and
// LoadLatents.
Decoder LoadModel(const std::string& model_dir, const std::string& adapter_dir, at::ScalarType dtype,
                  at::Device device);

}  // namespace plural::trainer
