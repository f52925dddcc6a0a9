// A state whose moments lie on several ranks: what it takes all of them to say, to save and to load.
//
// Owns: the way of the moments to rank 0 and back. Does not own: which rank keeps which (dist/shards.h),
// files and their commit (checkpoint.h). Thread rule: main thread. Precondition of all: the state has shards.
//
// Moments travel a parameter at a time, in host memory, so that no rank ever has all of them.
#pragma once

#include <ATen/core/TensorBody.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "dist/collectives.h"
#include "dist/flat_parameters.h"
#include "trainer/files/safetensors.h"
#include "trainer/state/train_state.h"

namespace plural::trainer {

// What ReplicaHash says of the same state without shards; "" on other ranks than 0. COLLECTIVE.
std::string HashOverRanks(const TrainState& state, dist::Collectives& collectives);
// The same of this rank's parameters and the moments in a checkpoint's file. Errors: those of
// checkpoint_tensors.h.
std::string HashWithMomentsOf(const std::filesystem::path& file, const TrainState& state);

// All moments, one after the other, in the order in which a file has them. The references outlive it.
class MomentsInTurn {
 public:
  MomentsInTurn(const TrainState& state, dist::Collectives& collectives);

  const std::vector<SafetensorsWriter::Item>& Items() const { return items_; }
  // The next of Items() on rank 0; undefined on others. COLLECTIVE, as often as there are items.
  at::Tensor Next();

 private:
  const TrainState& state_;
  dist::Collectives& collectives_;
  std::vector<SafetensorsWriter::Item> items_;
  struct Place {
    std::size_t span = 0;
    bool second = false;
  };
  std::vector<Place> places_;  // of the items
  std::size_t taken_ = 0;
};

// Rank 0 writes them to a new file, the others hand theirs over (PassOn). COLLECTIVE. Errors: those of
// SafetensorsWriter.
WrittenFile WriteMoments(const std::filesystem::path& file, MomentsInTurn& moments);
void PassOn(MomentsInTurn& moments);
// All at once, on rank 0. COLLECTIVE.
std::vector<dist::NamedTensor> CopyOfMoments(MomentsInTurn& moments);

// Every rank gets what it keeps of the file, which rank 0 reads. COLLECTIVE. Errors: those of
// checkpoint_tensors.h, on rank 0.
void ReadMoments(const std::filesystem::path& file, TrainState& state, dist::Collectives& collectives);

// The sum of all words of 64 bits: ranks whose parameters differ in one bit have different ones.
std::uint64_t SumOfWords(const at::Tensor& flat);

}  // namespace plural::trainer
