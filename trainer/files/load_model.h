// A model ready for use, from its folder and perhaps an adapter's.
//
// Owns: the order of loading, who reads when there are several ranks. Does not own: files (hf_folder.h).
// Thread rule: one thread.
#pragma once

#include <ATen/core/TensorBody.h>

#include <string>

#include "dist/collectives.h"
#include "dist/world.h"
#include "trainer/files/hf_folder.h"
#include "trainer/model/decoder.h"

namespace plural::trainer {

// Base weights on every rank: the first rank of each machine reads `folder`, tensor by tensor, and hands its
// machine's other ranks what it has read; those open no file. COLLECTIVE.
// Errors: those of hf_folder.h's function of this name, told by one rank while the others wait for the end.
void LoadBaseWeights(Decoder& model, const std::string& folder, const dist::World& world,
                     dist::Collectives& collectives, FullLinears full_linears = FullLinears::kKeep);

// `adapter_dir` may be empty. Latents of method cvf come with the adapter, or with a model trained without
// one. For inference: nothing requires a gradient.
// Errors: those of ModelConfig::FromFolder, LoadBaseWeights, PeftConfig, AttachAdapter, LatentsIn and
// LoadLatents.
Decoder LoadModel(const std::string& model_dir, const std::string& adapter_dir, at::ScalarType dtype,
                  at::Device device, FullLinears full_linears = FullLinears::kKeep);
// The same on every rank, each machine's base weights read once. COLLECTIVE.
Decoder LoadModel(const std::string& model_dir, const std::string& adapter_dir, at::ScalarType dtype,
                  at::Device device, const dist::World& world, dist::Collectives& collectives,
                  FullLinears full_linears = FullLinears::kKeep);

}  // namespace plural::trainer
