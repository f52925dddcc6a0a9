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
  // Every machine's first rank's (local rank 0) tensor to the other ranks of that machine, in place, in host
  // memory: what one rank has read need not be read by its neighbours. COLLECTIVE over all ranks.
  virtual void BroadcastOnMachine(const at::Tensor& tensor) = 0;
  virtual void Barrier() = 0;
};

// MPI, on host memory: one communication thread with one FIFO, since MPI_Iallreduce of Open MPI 4.1
// does not progress by itself. A world of one makes no thread and moves nothing. `chunk_elements`: the
// most elements of one MPI_Allreduce (1 to 2^31 - 1), the same on all ranks. COLLECTIVE.
// Errors of MPI come back as PeerError, out of Wait() or the synchronous call. When an exception unwinds
// the owner, the thread is left behind: end the process with World::Abort. Of two instances (MPI's and
// NCCL's control plane) only one may have work under way, for MPI_THREAD_SERIALIZED.
std::unique_ptr<Collectives> MakeMpiCollectives(const World& world,
                                                std::int64_t chunk_elements = std::int64_t{1} << 26);

// NCCL, on CUDA memory: one communicator, one stream, events; the control plane, and Broadcast of host
// tensors, stay on MPI. Loads the GPU part of libtorch, so call it, or LocalCudaDevice, before the first
// CUDA tensor. Wait() holds the host until the sum is there, watching for errors of the communicator: a
// lost peer would otherwise hang the GPU without a word. COLLECTIVE.
// Errors: ResourceError when built without NCCL, when its libraries do not load, when there is no
// `device`, or when another rank uses the same GPU.
std::unique_ptr<Collectives> MakeNcclCollectives(const World& world, int device);
// The CUDA device of this rank: its local rank, or 0 where the launcher shows each rank one GPU.
// Errors: ResourceError as above, and when this machine runs more ranks than it has GPUs.
int LocalCudaDevice(const World& world);
bool NcclCompiled();
std::string NcclVersion();  // "2.28.9", or "not compiled"
int CudaRuntimeVersion();   // built with, as 1000 major + 10 minor; 0: not compiled
// Why the NCCL part cannot be used in this process, in one line; empty when it loads. Loading takes
// seconds where the libraries are there.
std::string NcclProblem();

}  // namespace plural::dist
