// The activation budget: which passes keep everything for backward, and which compute it twice.
//
// Owns: the bytes that a rank's activations may take, and the choice for one pass. Does not own:
// what a pass would take (memory_model.h), how a layer is computed twice (ops/recompute.h). Thread
// rule: one thread.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "data/rows.h"
#include "dist/world.h"
#include "trainer/model/decoder.h"

namespace plural::trainer {

// The share of what is free: the rest is for what libraries take later (cuBLAS workspaces, NCCL) and for
// memory in pieces.
inline constexpr double kUsedOnGpu = 0.85;

class ActivationBudget {
 public:
  // Make it when weights, gradients and moments are in memory: without train.activation_bytes the
  // budget is 0.85 of the device's free memory, or on the CPU nine tenths of the machine's free
  // memory divided by its ranks. `model` outlives this. `checkpointing`: auto, on or off; `bytes`: the
  // budget of auto, 0: the free memory (train.activation_* of a recipe).
  ActivationBudget(const std::string& checkpointing, std::int64_t bytes, const Decoder& model,
                   const dist::World& world);

  bool Recomputes(const data::RowPass& pass) const;

  // One of `passes` has run out of memory: from here on the largest of those that were not recomputed is, and
  // with it all of its size. False where there is none, or where the recipe does not leave the choice (on,
  // off).
  bool LowerFor(std::span<const data::RowPass> passes);

 private:
  std::int64_t BytesOf(const data::RowPass& pass) const;

  const Decoder& model_;
  const bool chooses_;
  const bool tree_kernel_;  // serves on this device
  std::int64_t bytes_;      // INT64_MAX when all is kept, 0 when nothing is
};

}  // namespace plural::trainer
