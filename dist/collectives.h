// Collectives: the bytes and sums that ranks exchange.
//
// Owns: the one interface and, per implementation, its communicator, communication thread or stream.
// Does not own: what is summed (gradient_sync.h). Thread rule: called from the main thread only; calls
// are made in the same order on every rank. All functions are COLLECTIVE: every rank must enter them.
#pragma once

#include <ATen/core/TensorBody.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "dist/world.h"

namespace plural::dist {

// A reduction under way. Wait() returns when the tensor holds the result (for CUDA: when work queued
// on the current stream after it will see the result) and rethrows what went wrong.
class Pending {
 public:
  virtual ~Pending() = default;
  virtual void Wait() = 0;
};

class Collectives {
 public:
  virtual ~Collectives() = default;

  // Starts the sum of `tensor` (contiguous, fp32 or fp64, on this implementation's device) over all
  // ranks, in place; the same bits arrive on every rank. COLLECTIVE.
  virtual std::unique_ptr<Pending> AllReduceSum(const at::Tensor& tensor) = 0;

  // Control plane, on host memory, small. COLLECTIVE.
  virtual void AllReduceSum(std::span<double> values) = 0;
  virtual void AllReduceMax(std::span<double> values) = 0;
  virtual void Broadcast(std::string& bytes, int root) = 0;
  // Every rank's bytes, in rank order, on every rank. COLLECTIVE.
  virtual std::vector<std::string> AllGather(const std::string& bytes) = 0;
  // Rank `root`'s tensor to all, in place. COLLECTIVE.
  virtual void Broadcast(const at::Tensor& tensor, int root) = 0;
  virtual void Barrier() = 0;
};

// MPI, on host memory: one communication thread with one FIFO, since MPI_Iallreduce of Open MPI 4.1
// does not progress by itself. COLLECTIVE.
std::unique_ptr<Collectives> MakeMpiCollectives(const World& world);

// NCCL, on CUDA memory: one communicator, one stream, events; the control plane stays on MPI.
// COLLECTIVE. Errors: ResourceError when built without NCCL or when no GPU is left for this rank.
std::unique_ptr<Collectives> MakeNcclCollectives(const World& world, int device);
bool NcclCompiled();
std::string NcclVersion();  // "2.28.9", or "not compiled"

}  // namespace plural::dist
