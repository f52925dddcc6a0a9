// The device that a command computes on.
//
// Owns: what auto, cpu and cuda mean to model.device of a recipe and to --device; opening a GPU for commands
// that only run a model. Does not own: the option (model_options.h), NCCL's collectives of training
// (train.h), kernels. Thread rule: main thread, before the first tensor on a GPU and before anything is
// differentiated.
#pragma once

#include <c10/core/Device.h>

#include <string>

#include "dist/collectives.h"
#include "dist/world.h"
#include "trainer/commands/model_options.h"
#include "trainer/model/decoder.h"

namespace plural::trainer {

// Whether this rank computes on a GPU. auto takes one where the driver shows one and the CUDA libraries load;
// fp64 is computed on the CPU. cuda is true without a look, so that opening it says what is missing.
bool UsesCuda(const std::string& device, const std::string& dtype);

// Whether all ranks do, where `here` says whether this one does. Rank 0 warns where only some do. COLLECTIVE.
bool AllUseCuda(bool here, const dist::World& world, dist::Collectives& collectives);

// auto computes on the CPU unless every rank has a GPU. On GPUs ranks take one each by their local rank;
// where one lacks the kernels, rank 0 warns. COLLECTIVE. Errors: ExitError(kUsage) for fp64 on a GPU;
// ResourceError, told by one rank, where cuda is asked for and cannot be had, or ranks would share a GPU.
at::Device OpenDevice(const ComputeOptions& options, const dist::World& world,
                      dist::Collectives& collectives);

// On a GPU: whether its attention kernels take the model's shape and compute what they should, as before
// training. Errors: ExitError(kBadRecipe) for the shape, ExitError(kWrongResources) for the kernels.
void RequireDeviceServes(const Decoder& model);
// The same, and for attention over the cache, which generation takes.
void RequireDeviceGenerates(const Decoder& model);

}  // namespace plural::trainer
