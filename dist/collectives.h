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

// A reduction in progress. Wait() returns when the tensor holds the result (for CUDA: when work
// queued on the current stream after it will see the result) and rethrows the reduction's error.
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

  // Starts the sum of `tensor` over all ranks, of which a rank gets its own slice (slices.h), in place;
  // `tensor` as for AllReduceSum, of a multiple of kSliceUnit elements. Where ScattersSums, its other slices
  // hold nothing of use afterwards, and its own has the bits of an order of its own; elsewhere all is as
  // after AllReduceSum, to the bit: no call of MPI adds in the order of its all-reduce. COLLECTIVE.
  virtual std::unique_ptr<Pending> ReduceScatterSum(const at::Tensor& tensor) = 0;
  virtual bool ScattersSums() const = 0;
  // Starts to copy each rank's own slice of `tensor` to all ranks, in place; `tensor` as for
  // ReduceScatterSum. COLLECTIVE.
  virtual std::unique_ptr<Pending> AllGatherSlices(const at::Tensor& tensor) = 0;

  // Control plane: a few values in host memory. COLLECTIVE.
  virtual void AllReduceSum(std::span<double> values) = 0;
  virtual void AllReduceMax(std::span<double> values) = 0;
  virtual void Broadcast(std::string& bytes, int root) = 0;
  // Every rank's bytes, in rank order, on every rank. COLLECTIVE.
  virtual std::vector<std::string> AllGather(const std::string& bytes) = 0;
  // Copies rank `root`'s tensor to all ranks, in place. COLLECTIVE.
  virtual void Broadcast(const at::Tensor& tensor, int root) = 0;
  // Cuts rank `root`'s `whole` [ranks * n] into slices: each rank gets its own, [n]. In host memory; `whole`
  // of other ranks is not read. COLLECTIVE.
  virtual void Scatter(const at::Tensor& whole, const at::Tensor& slice, int root) = 0;
  // Every rank's slice, [n], in rank order, in `whole` [ranks * n] of every rank. In host memory. COLLECTIVE.
  virtual void AllGather(const at::Tensor& slice, const at::Tensor& whole) = 0;
  // Copies the tensor of each machine's local rank 0 to the other ranks of that machine, in place,
  // in host memory, so that only one rank per machine need read a file. COLLECTIVE over all ranks.
  virtual void BroadcastOnMachine(const at::Tensor& tensor) = 0;
  virtual void Barrier() = 0;
};

// MPI, on host memory: one communication thread with one FIFO, since MPI_Iallreduce of Open MPI 4.1
// does not progress by itself. A world of one makes no thread and moves nothing. `chunk_elements`:
// the most elements of one MPI_Allreduce (1 to 2^31 - 1), the same on all ranks. COLLECTIVE.
// MPI's errors are thrown as PeerError by Wait() or by the synchronous call. When an exception
// unwinds the owner, the thread is left behind: end the process with World::Abort. Only one of two
// instances (this one, and NCCL's control plane) may have work in progress, because of
// MPI_THREAD_SERIALIZED.
std::unique_ptr<Collectives> MakeMpiCollectives(const World& world,
                                                std::int64_t chunk_elements = std::int64_t{1} << 26);

// NCCL, on CUDA memory: one communicator, one stream, events. The control plane, and Broadcast of
// host tensors, stay on MPI. This loads the GPU part of libtorch, so call it, or LocalCudaDevice,
// before the first CUDA tensor. Wait() holds the host until the sum is there and watches for errors
// of the communicator, since a lost peer would otherwise hang the GPU silently, and for no longer than
// `wait_seconds` (0: without end), after which it throws PeerError with the peers' names. COLLECTIVE.
// Errors: ResourceError when built without NCCL, when its libraries do not load, when there is no
// `device`, or when another rank uses the same GPU.
std::unique_ptr<Collectives> MakeNcclCollectives(const World& world, int device, double wait_seconds);
// The CUDA device of this rank: its local rank, or 0 where the launcher shows each rank one GPU.
// Errors: ResourceError as above, and when this machine runs more ranks than it has GPUs.
int LocalCudaDevice(const World& world);
// The same device for work whose sums go over MPI alone, made this thread's current one. COLLECTIVE.
// Errors: those of LocalCudaDevice, and ResourceError when another rank uses the same GPU.
int TakeCudaDevice(const World& world, Collectives& collectives);
bool NcclCompiled();
std::string NcclVersion();  // compiled for: "2.28.9", or "not compiled"
// The version of the library that this process has loaded, or "" where it loads none. Takes seconds, as
// NcclProblem.
std::string LoadedNcclVersionText();
int CudaRuntimeVersion();  // of the build, as 1000 major + 10 minor; 0: not compiled
// The reason why the NCCL part cannot be used in this process, in one line; empty when it loads.
// Loading takes seconds where the libraries are installed.
std::string NcclProblem();

}  // namespace plural::dist
