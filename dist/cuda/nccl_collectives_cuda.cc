// The NCCL collectives, in the module that is opened only when CUDA is used (module.h).
#include <ATen/core/Tensor.h>
#include <c10/cuda/CUDAEvent.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>
#include <nccl.h>

#include <cstring>
#include <exception>
#include <stdexcept>
#include <string>
#include <utility>

#include "dist/cuda/module.h"
#include "dist/cuda/own_gpu.h"
#include "dist/error.h"
#include "dist/patience.h"
#include "dist/slices.h"

namespace plural::dist {
namespace {

// The communicator is non-blocking: a call may return ncclInProgress, and only then can a
// communicator whose peer is lost, or does not come, be aborted.
class Communicator {
 public:
  Communicator(int rank, int size, const ncclUniqueId& id, std::string where, Patience patience)
      : where_(std::move(where)), patience_(std::move(patience)) {
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    Check(ncclCommInitRankConfig(&handle_, size, id, rank, &config), "ncclCommInitRank");
    AwaitReady("ncclCommInitRank");
  }

  ~Communicator() {
    if (handle_ == nullptr) return;
    ncclResult_t state = ncclInternalError;
    if (std::uncaught_exceptions() == uncaught_at_start_) {
      state = ncclCommFinalize(handle_);
      try {
        AwaitWithin(patience_, "ncclCommFinalize", where_, [&] {
          return state != ncclInProgress || ncclCommGetAsyncError(handle_, &state) != ncclSuccess;
        });
      } catch (const PeerError&) {  // aborted below: nothing is lost, all sums are there
      }
    }
    // Peers do not learn of an abort from NCCL: main ends the job with World::Abort.
    if (state == ncclSuccess) {
      ncclCommDestroy(handle_);
    } else {
      ncclCommAbort(handle_);
    }
  }
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  ncclComm_t Handle() const { return handle_; }

  void Check(ncclResult_t status, const char* operation) const {
    if (status == ncclSuccess || status == ncclInProgress) return;
    throw PeerError(std::string(operation) + " failed on " + where_ + ": " + ncclGetErrorString(status) +
                    " (" + ncclGetLastError(handle_) + ")");
  }

  // True when no call is still being enqueued. Throws when the communicator has failed.
  bool Ready(const char* operation) const {
    ncclResult_t state = ncclSuccess;
    Check(ncclCommGetAsyncError(handle_, &state), operation);
    Check(state, operation);
    return state == ncclSuccess;
  }

  void AwaitReady(const char* operation) const {
    Await(operation, [&] { return Ready(operation); });
  }

  template <class Done>
  void Await(const char* operation, const Done& done) const {
    AwaitWithin(patience_, operation, where_, done);
  }

 private:
  const std::string where_;
  const Patience patience_;
  const int uncaught_at_start_ = std::uncaught_exceptions();
  ncclComm_t handle_ = nullptr;
};

class OnStream : public Pending {
 public:
  OnStream(const Communicator& communicator, const c10::cuda::CUDAStream& stream, at::Tensor tensor,
           const char* operation)
      : communicator_(communicator), operation_(operation), tensor_(std::move(tensor)) {
    finished_.record(stream);
  }

  void Wait() override {
    finished_.block(c10::cuda::getCurrentCUDAStream(tensor_.get_device()));
    communicator_.Await(operation_, [&] {
      if (finished_.query()) return true;
      communicator_.Ready(operation_);
      return false;
    });
  }

 private:
  const Communicator& communicator_;
  const char* operation_;
  at::Tensor tensor_;  // keeps its memory until the event
  c10::cuda::CUDAEvent finished_;
};

std::string Where(int rank, int size, int device) {
  return "rank " + std::to_string(rank) + " of " + std::to_string(size) + " (CUDA device " +
         std::to_string(device) + ")";
}

// The GPU's UUID, which does not depend on its number in this process.
std::string DeviceIdentity(int device) {
  cudaDeviceProp properties{};
  if (const cudaError_t status = cudaGetDeviceProperties(&properties, device); status != cudaSuccess) {
    throw ResourceError("CUDA device " + std::to_string(device) +
                        " cannot be used: " + cudaGetErrorString(status));
  }
  return std::string(properties.uuid.bytes, sizeof(properties.uuid.bytes));
}

// COLLECTIVE over `control`.
ncclUniqueId AgreeOnId(int rank, Collectives& control) {
  ncclUniqueId id{};
  if (rank == 0) {
    if (const ncclResult_t status = ncclGetUniqueId(&id); status != ncclSuccess) {
      throw ResourceError(std::string("ncclGetUniqueId failed on rank 0: ") + ncclGetErrorString(status));
    }
  }
  std::string bytes(id.internal, sizeof(id.internal));
  control.Broadcast(bytes, 0);
  std::memcpy(id.internal, bytes.data(), sizeof(id.internal));
  return id;
}

class NcclCollectives : public Collectives {
 public:
  NcclCollectives(int rank, int size, int device, const Patience& patience,
                  std::unique_ptr<Collectives> control)
      : rank_(rank),
        size_(size),
        device_(device),
        control_(std::move(control)),
        stream_(CheckedStream(rank, device, *control_)),
        communicator_(rank, size, AgreeOnId(rank, *control_), Where(rank, size, device), patience) {}

  using Collectives::AllReduceSum;
  std::unique_ptr<Pending> AllReduceSum(const at::Tensor& tensor) override {
    const ncclDataType_t type = TypeOfSum(tensor, "AllReduceSum");
    StartAfterCurrentStream();
    communicator_.Check(
        ncclAllReduce(tensor.data_ptr(), tensor.data_ptr(), static_cast<std::size_t>(tensor.numel()), type,
                      ncclSum, communicator_.Handle(), stream_),
        "ncclAllReduce");
    communicator_.AwaitReady("ncclAllReduce");  // enqueued, not done
    return std::make_unique<OnStream>(communicator_, stream_, tensor, "ncclAllReduce");
  }

  std::unique_ptr<Pending> ReduceScatterSum(const at::Tensor& tensor) override {
    const ncclDataType_t type = TypeOfSum(tensor, "ReduceScatterSum");
    const Cut cut = CutOf(tensor);
    StartAfterCurrentStream();
    communicator_.Check(ncclGroupStart(), "ncclGroupStart");
    if (cut.slice > 0) {
      communicator_.Check(ncclReduceScatter(tensor.data_ptr(), cut.own, cut.slice, type, ncclSum,
                                            communicator_.Handle(), stream_),
                          "ncclReduceScatter");
    }
    if (cut.rest > 0) {
      communicator_.Check(ncclReduce(cut.behind, cut.behind, cut.rest, type, ncclSum, size_ - 1,
                                     communicator_.Handle(), stream_),
                          "ncclReduce");
    }
    communicator_.Check(ncclGroupEnd(), "ncclReduceScatter");
    communicator_.AwaitReady("ncclReduceScatter");
    return std::make_unique<OnStream>(communicator_, stream_, tensor, "ncclReduceScatter");
  }
  bool ScattersSums() const override { return true; }

  std::unique_ptr<Pending> AllGatherSlices(const at::Tensor& tensor) override {
    CheckDeviceTensor(tensor, "AllGatherSlices");
    const Cut cut = CutOf(tensor);
    const std::size_t element = tensor.element_size();
    StartAfterCurrentStream();
    communicator_.Check(ncclGroupStart(), "ncclGroupStart");
    if (cut.slice > 0) {
      communicator_.Check(ncclAllGather(cut.own, tensor.data_ptr(), cut.slice * element, ncclUint8,
                                        communicator_.Handle(), stream_),
                          "ncclAllGather");
    }
    if (cut.rest > 0) {
      communicator_.Check(ncclBroadcast(cut.behind, cut.behind, cut.rest * element, ncclUint8, size_ - 1,
                                        communicator_.Handle(), stream_),
                          "ncclBroadcast");
    }
    communicator_.Check(ncclGroupEnd(), "ncclAllGather");
    communicator_.AwaitReady("ncclAllGather");
    return std::make_unique<OnStream>(communicator_, stream_, tensor, "ncclAllGather");
  }

  void Broadcast(const at::Tensor& tensor, int root) override {
    if (tensor.device().is_cpu()) {
      control_->Broadcast(tensor, root);
      return;
    }
    CheckDeviceTensor(tensor, "Broadcast");
    StartAfterCurrentStream();
    communicator_.Check(ncclBroadcast(tensor.data_ptr(), tensor.data_ptr(), tensor.nbytes(), ncclUint8, root,
                                      communicator_.Handle(), stream_),
                        "ncclBroadcast");
    communicator_.AwaitReady("ncclBroadcast");
    OnStream(communicator_, stream_, tensor, "ncclBroadcast").Wait();
  }

  void Scatter(const at::Tensor& whole, const at::Tensor& slice, int root) override {
    control_->Scatter(whole, slice, root);
  }
  void AllGather(const at::Tensor& slice, const at::Tensor& whole) override {
    control_->AllGather(slice, whole);
  }
  void BroadcastOnMachine(const at::Tensor& tensor) override { control_->BroadcastOnMachine(tensor); }
  void AllReduceSum(std::span<double> values) override { control_->AllReduceSum(values); }
  void AllReduceMax(std::span<double> values) override { control_->AllReduceMax(values); }
  void Broadcast(std::string& bytes, int root) override { control_->Broadcast(bytes, root); }
  std::vector<std::string> AllGather(const std::string& bytes) override { return control_->AllGather(bytes); }
  void Barrier() override { control_->Barrier(); }

 private:
  // A stream from libtorch's pool is non-blocking: it does not wait for the default stream by
  // itself. Two ranks on one GPU hang inside NCCL or get an unclear error, so they are found first.
  static c10::cuda::CUDAStream CheckedStream(int rank, int device, Collectives& control) {
    RequireOwnGpu(control.AllGather(DeviceIdentity(device)), rank);
    c10::cuda::set_device(static_cast<c10::DeviceIndex>(device));
    return c10::cuda::getStreamFromPool(/*isHighPriority=*/true, static_cast<c10::DeviceIndex>(device));
  }

  // NCCL's slices are equal. Behind them is the rest, the last rank's, too (slices.h).
  struct Cut {
    std::size_t slice = 0, rest = 0;         // elements
    char *own = nullptr, *behind = nullptr;  // this rank's slice, the rest
  };
  Cut CutOf(const at::Tensor& tensor) const {
    const std::int64_t equal = SliceOf(tensor.numel(), size_, 0).size;
    auto* bytes = static_cast<char*>(tensor.data_ptr());
    const auto element = static_cast<std::int64_t>(tensor.element_size());
    return {static_cast<std::size_t>(equal), static_cast<std::size_t>(tensor.numel() - size_ * equal),
            bytes + rank_ * equal * element, bytes + size_ * equal * element};
  }

  ncclDataType_t TypeOfSum(const at::Tensor& tensor, const char* operation) const {
    CheckDeviceTensor(tensor, operation);
    const at::ScalarType type = tensor.scalar_type();
    if (type != at::kFloat && type != at::kDouble) {
      throw std::invalid_argument(std::string(operation) + " takes fp32 or fp64; found " +
                                  at::toString(type));
    }
    return type == at::kFloat ? ncclFloat32 : ncclFloat64;
  }

  void CheckDeviceTensor(const at::Tensor& tensor, const char* operation) const {
    if (!tensor.defined() || !tensor.is_cuda() || tensor.get_device() != device_ || !tensor.is_contiguous()) {
      throw std::invalid_argument(std::string(operation) +
                                  " over NCCL takes a contiguous tensor on CUDA device " +
                                  std::to_string(device_));
    }
  }

  // Makes the communication stream wait for the work that computes the tensor.
  void StartAfterCurrentStream() {
    c10::cuda::CUDAEvent computed;
    computed.record(c10::cuda::getCurrentCUDAStream(static_cast<c10::DeviceIndex>(device_)));
    computed.block(stream_);
  }

  const int rank_, size_, device_;
  const std::unique_ptr<Collectives> control_;
  const c10::cuda::CUDAStream stream_;
  const Communicator communicator_;
};

}  // namespace
}  // namespace plural::dist

extern "C" {

plural::dist::MakeNccl plural_make_nccl;
plural::dist::CudaDeviceCount plural_cuda_device_count;
plural::dist::UseCudaDevice plural_use_cuda_device;
plural::dist::LoadedNcclVersion plural_nccl_version;

void plural_make_nccl(int rank, int size, int device, const plural::dist::Patience& patience,
                      std::unique_ptr<plural::dist::Collectives> control,
                      std::unique_ptr<plural::dist::Collectives>& result) {
  result = std::make_unique<plural::dist::NcclCollectives>(rank, size, device, patience, std::move(control));
}

int plural_cuda_device_count() { return c10::cuda::device_count(); }

void plural_use_cuda_device(int device, std::string& uuid) {
  uuid = plural::dist::DeviceIdentity(device);
  c10::cuda::set_device(static_cast<c10::DeviceIndex>(device));
}

int plural_nccl_version() {
  int version = 0;
  return ncclGetVersion(&version) == ncclSuccess ? version : 0;
}
}
