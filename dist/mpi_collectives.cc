// One communication thread with one FIFO makes every MPI call between World's construction and
// destruction. It is a thread, because MPI_Iallreduce of Open MPI 4.1 moves data only inside MPI
// calls and so does not overlap, and one FIFO, because ranks must agree on the collectives' order.
#include <ATen/core/Tensor.h>
#include <mpi.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <future>
#include <limits>
#include <mutex>
#include <numeric>
#include <stdexcept>
#include <thread>
#include <utility>

#include "dist/collectives.h"
#include "dist/error.h"
#include "dist/slices.h"

namespace plural::dist {
namespace {

// Bytes of one MPI_Bcast: counts of MPI 3 are int.
constexpr std::int64_t kBroadcastBytes = std::int64_t{1} << 30;

// The communicator, the queue and the thread's loop, shared by owner and thread: when an exception
// unwinds the owner while the thread waits for a peer that will not come, the thread is left behind
// and keeps the channel alive.
class Channel {
 public:
  explicit Channel(const World& world)
      : where_("rank " + std::to_string(world.Rank()) + " of " + std::to_string(world.Size()) + " (" +
               world.Host() + ")") {
    Check(MPI_Comm_dup(MPI_COMM_WORLD, &communicator_), "MPI_Comm_dup");
    MPI_Comm_set_errhandler(communicator_, MPI_ERRORS_RETURN);
    Check(MPI_Comm_split_type(communicator_, MPI_COMM_TYPE_SHARED, world.Rank(), MPI_INFO_NULL, &machine_),
          "MPI_Comm_split_type");
  }

  MPI_Comm Communicator() const { return communicator_; }
  MPI_Comm Machine() const { return machine_; }  // this machine's ranks, in their order

  void Check(int status, const char* operation) const {
    if (status == MPI_SUCCESS) return;
    char text[MPI_MAX_ERROR_STRING] = {};
    int length = 0;
    MPI_Error_string(status, text, &length);
    throw PeerError(std::string(operation) + " failed on " + where_ + ": " +
                    std::string(text, static_cast<std::size_t>(length)));
  }

  std::future<void> Post(std::function<void()> work) {
    std::packaged_task<void()> job(std::move(work));
    std::future<void> done = job.get_future();
    {
      const std::lock_guard lock(mutex_);
      jobs_.push_back(std::move(job));
    }
    wake_.notify_one();
    return done;
  }

  void Close() {
    {
      const std::lock_guard lock(mutex_);
      closing_ = true;
    }
    wake_.notify_one();
  }

  // The thread's body: jobs in order, until closed and empty.
  void Run() {
    for (;;) {
      std::packaged_task<void()> job;
      {
        std::unique_lock lock(mutex_);
        wake_.wait(lock, [this] { return closing_ || !jobs_.empty(); });
        if (jobs_.empty()) break;
        job = std::move(jobs_.front());
        jobs_.pop_front();
      }
      job();
    }
    MPI_Comm_free(&machine_);
    MPI_Comm_free(&communicator_);
  }

  // Sleeps until every rank has entered this collective. Open MPI's blocking calls spin, which
  // would take the core from this rank's own backward while a slower peer still computes.
  void AwaitPeers() const {
    constexpr int kYields = 64;  // enough for peers that arrive together
    constexpr std::chrono::microseconds kPause{100};
    MPI_Request request = MPI_REQUEST_NULL;
    Check(MPI_Ibarrier(communicator_, &request), "MPI_Ibarrier");
    for (int polls = 0;; ++polls) {
      int arrived = 0;
      Check(MPI_Test(&request, &arrived, MPI_STATUS_IGNORE), "MPI_Ibarrier");
      if (arrived) return;
      if (polls < kYields) {
        std::this_thread::yield();
      } else {
        std::this_thread::sleep_for(kPause);
      }
    }
  }

 private:
  const std::string where_;
  MPI_Comm communicator_ = MPI_COMM_NULL, machine_ = MPI_COMM_NULL;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::packaged_task<void()>> jobs_;
  bool closing_ = false;
};

class Done : public Pending {
 public:
  void Wait() override {}
};

class OnThread : public Pending {
 public:
  OnThread(std::future<void> done, Pulse& pulse) : done_(std::move(done)), pulse_(pulse) {}
  void Wait() override {
    const Pulse::Waiting waiting(pulse_);
    done_.get();
  }

 private:
  std::future<void> done_;
  Pulse& pulse_;
};

void CheckHostTensor(const at::Tensor& tensor, const char* operation) {
  if (!tensor.defined() || !tensor.device().is_cpu() || !tensor.is_contiguous()) {
    throw std::invalid_argument(std::string(operation) +
                                " over MPI takes a contiguous tensor in host memory");
  }
}

class MpiCollectives : public Collectives {
 public:
  MpiCollectives(const World& world, std::int64_t chunk_elements)
      : size_(world.Size()),
        pulse_(world.GetPulse()),
        chunk_elements_(chunk_elements),
        uncaught_at_start_(std::uncaught_exceptions()) {
    if (chunk_elements < 1 || chunk_elements > std::numeric_limits<int>::max()) {
      throw std::invalid_argument("chunk_elements is " + std::to_string(chunk_elements) +
                                  "; allowed: 1 to 2147483647");
    }
    if (size_ == 1) return;
    channel_ = std::make_shared<Channel>(world);
    thread_ = std::thread([channel = channel_] { channel->Run(); });
  }

  ~MpiCollectives() override {
    if (size_ == 1) return;
    if (std::uncaught_exceptions() > uncaught_at_start_) {
      thread_.detach();  // it may wait for peers for ever; main ends the process with World::Abort
      return;
    }
    channel_->Close();
    thread_.join();
  }

  std::unique_ptr<Pending> AllReduceSum(const at::Tensor& tensor) override {
    CheckHostTensor(tensor, "AllReduceSum");
    const at::ScalarType type = tensor.scalar_type();
    if (type != at::kFloat && type != at::kDouble) {
      throw std::invalid_argument(std::string("AllReduceSum takes fp32 or fp64; found ") +
                                  at::toString(type));
    }
    if (size_ == 1) return std::make_unique<Done>();
    return std::make_unique<OnThread>(channel_->Post([channel = channel_, tensor, chunk = chunk_elements_] {
      channel->AwaitPeers();
      const MPI_Datatype mpi_type = tensor.scalar_type() == at::kFloat ? MPI_FLOAT : MPI_DOUBLE;
      auto* bytes = static_cast<char*>(tensor.data_ptr());
      for (std::int64_t begin = 0; begin < tensor.numel(); begin += chunk) {
        const auto count = static_cast<int>(std::min(chunk, tensor.numel() - begin));
        channel->Check(MPI_Allreduce(MPI_IN_PLACE, bytes + begin * tensor.element_size(), count, mpi_type,
                                     MPI_SUM, channel->Communicator()),
                       "MPI_Allreduce");
      }
    }),
                                      pulse_);
  }

  // Ranks must come to the bits of the whole sum, and MPI_Reduce_scatter adds in another order.
  std::unique_ptr<Pending> ReduceScatterSum(const at::Tensor& tensor) override {
    CheckWholeUnits(tensor, "ReduceScatterSum");
    return AllReduceSum(tensor);
  }
  bool ScattersSums() const override { return false; }

  std::unique_ptr<Pending> AllGatherSlices(const at::Tensor& tensor) override {
    CheckHostTensor(tensor, "AllGatherSlices");
    CheckWholeUnits(tensor, "AllGatherSlices");
    if (size_ == 1) return std::make_unique<Done>();
    return std::make_unique<OnThread>(channel_->Post([channel = channel_, tensor, size = size_] {
      channel->AwaitPeers();
      // Counts of MPI 3 are int: those of units reach 16 times as far.
      std::vector<int> counts, offsets;
      for (int rank = 0; rank < size; ++rank) {
        const Slice slice = SliceOf(tensor.numel(), size, rank);
        counts.push_back(static_cast<int>(slice.size / kSliceUnit));
        offsets.push_back(static_cast<int>(slice.offset / kSliceUnit));
      }
      MPI_Datatype unit = MPI_DATATYPE_NULL;
      const auto bytes = static_cast<int>(kSliceUnit * tensor.element_size());
      channel->Check(MPI_Type_contiguous(bytes, MPI_BYTE, &unit), "MPI_Type_contiguous");
      channel->Check(MPI_Type_commit(&unit), "MPI_Type_commit");
      channel->Check(MPI_Allgatherv(MPI_IN_PLACE, 0, unit, tensor.data_ptr(), counts.data(), offsets.data(),
                                    unit, channel->Communicator()),
                     "MPI_Allgatherv");
      channel->Check(MPI_Type_free(&unit), "MPI_Type_free");
    }),
                                      pulse_);
  }

  void AllReduceSum(std::span<double> values) override { AllReduce(values, MPI_SUM); }
  void AllReduceMax(std::span<double> values) override { AllReduce(values, MPI_MAX); }

  void Broadcast(std::string& bytes, int root) override {
    CheckRoot(root);
    Synchronously([&](const Channel& channel) {
      std::uint64_t length = bytes.size();
      channel.Check(MPI_Bcast(&length, 1, MPI_UINT64_T, root, channel.Communicator()), "MPI_Bcast");
      bytes.resize(length);
      BroadcastBytes(channel, channel.Communicator(), bytes.data(), static_cast<std::int64_t>(length), root);
    });
  }

  void Broadcast(const at::Tensor& tensor, int root) override {
    CheckRoot(root);
    CheckHostTensor(tensor, "Broadcast");
    Synchronously([&](const Channel& channel) {
      BroadcastBytes(channel, channel.Communicator(), static_cast<char*>(tensor.data_ptr()),
                     static_cast<std::int64_t>(tensor.nbytes()), root);
    });
  }

  void BroadcastOnMachine(const at::Tensor& tensor) override {
    CheckHostTensor(tensor, "BroadcastOnMachine");
    Synchronously([&](const Channel& channel) {
      BroadcastBytes(channel, channel.Machine(), static_cast<char*>(tensor.data_ptr()),
                     static_cast<std::int64_t>(tensor.nbytes()), 0);
    });
  }

  std::vector<std::string> AllGather(const std::string& bytes) override {
    if (size_ == 1) return {bytes};
    std::vector<std::string> result(static_cast<std::size_t>(size_));
    Synchronously([&](const Channel& channel) {
      const std::uint64_t own = bytes.size();
      std::vector<std::uint64_t> lengths(result.size());
      channel.Check(
          MPI_Allgather(&own, 1, MPI_UINT64_T, lengths.data(), 1, MPI_UINT64_T, channel.Communicator()),
          "MPI_Allgather");
      const std::uint64_t total = std::accumulate(lengths.begin(), lengths.end(), std::uint64_t{0});
      if (total > static_cast<std::uint64_t>(std::numeric_limits<int>::max())) {
        throw std::length_error("AllGather of " + std::to_string(total) + " bytes; allowed: 2147483647");
      }
      const std::vector<int> counts(lengths.begin(), lengths.end());
      std::vector<int> offsets(counts.size());
      std::exclusive_scan(counts.begin(), counts.end(), offsets.begin(), 0);
      std::string all(total, '\0');
      channel.Check(MPI_Allgatherv(bytes.data(), static_cast<int>(own), MPI_BYTE, all.data(), counts.data(),
                                   offsets.data(), MPI_BYTE, channel.Communicator()),
                    "MPI_Allgatherv");
      for (std::size_t rank = 0; rank < result.size(); ++rank) {
        result[rank] = all.substr(static_cast<std::size_t>(offsets[rank]), lengths[rank]);
      }
    });
    return result;
  }

  void Scatter(const at::Tensor& whole, const at::Tensor& slice, int root) override {
    CheckRoot(root);
    const int bytes = CheckSlices(whole, slice);
    if (size_ == 1) slice.copy_(whole);
    Synchronously([&](const Channel& channel) {
      channel.Check(MPI_Scatter(whole.data_ptr(), bytes, MPI_BYTE, slice.data_ptr(), bytes, MPI_BYTE, root,
                                channel.Communicator()),
                    "MPI_Scatter");
    });
  }

  void AllGather(const at::Tensor& slice, const at::Tensor& whole) override {
    const int bytes = CheckSlices(whole, slice);
    if (size_ == 1) whole.copy_(slice);
    Synchronously([&](const Channel& channel) {
      channel.Check(MPI_Allgather(slice.data_ptr(), bytes, MPI_BYTE, whole.data_ptr(), bytes, MPI_BYTE,
                                  channel.Communicator()),
                    "MPI_Allgather");
    });
  }

  void Barrier() override {
    Synchronously([](const Channel&) {});  // every collective begins with one
  }

 private:
  // Runs `work` on the communication thread, after all that was posted before, and waits for it.
  template <typename Work>
  void Synchronously(const Work& work) {
    if (size_ == 1) return;
    const Pulse::Waiting waiting(pulse_);
    channel_
        ->Post([this, &work] {
          channel_->AwaitPeers();
          work(*channel_);
        })
        .get();
  }

  void AllReduce(std::span<double> values, MPI_Op operation) {
    if (values.size() > static_cast<std::size_t>(std::numeric_limits<int>::max())) {
      throw std::length_error("a control-plane reduction of " + std::to_string(values.size()) + " values");
    }
    Synchronously([&](const Channel& channel) {
      channel.Check(MPI_Allreduce(MPI_IN_PLACE, values.data(), static_cast<int>(values.size()), MPI_DOUBLE,
                                  operation, channel.Communicator()),
                    "MPI_Allreduce");
    });
  }

  static void BroadcastBytes(const Channel& channel, MPI_Comm among, char* bytes, std::int64_t size,
                             int root) {
    for (std::int64_t begin = 0; begin < size; begin += kBroadcastBytes) {
      const auto count = static_cast<int>(std::min(kBroadcastBytes, size - begin));
      channel.Check(MPI_Bcast(bytes + begin, count, MPI_BYTE, root, among), "MPI_Bcast");
    }
  }

  static void CheckWholeUnits(const at::Tensor& tensor, const char* operation) {
    if (tensor.numel() % kSliceUnit == 0 && tensor.numel() / kSliceUnit <= std::numeric_limits<int>::max()) {
      return;
    }
    throw std::invalid_argument(std::string(operation) + " takes a multiple of " +
                                std::to_string(kSliceUnit) + " elements, 34359738352 at most; found " +
                                std::to_string(tensor.numel()));
  }

  // The bytes of a slice.
  int CheckSlices(const at::Tensor& whole, const at::Tensor& slice) const {
    CheckHostTensor(whole, "an exchange of slices");
    CheckHostTensor(slice, "an exchange of slices");
    if (whole.nbytes() != slice.nbytes() * static_cast<std::size_t>(size_) ||
        slice.nbytes() > static_cast<std::size_t>(std::numeric_limits<int>::max())) {
      throw std::invalid_argument("slices of " + std::to_string(slice.nbytes()) + " bytes do not make up " +
                                  std::to_string(whole.nbytes()) + " on " + std::to_string(size_) + " ranks");
    }
    return static_cast<int>(slice.nbytes());
  }

  void CheckRoot(int root) const {
    if (root < 0 || root >= size_) {
      throw std::invalid_argument("root is rank " + std::to_string(root) + " in a world of " +
                                  std::to_string(size_));
    }
  }

  const int size_;
  Pulse& pulse_;  // the world's
  const std::int64_t chunk_elements_;
  const int uncaught_at_start_;
  std::shared_ptr<Channel> channel_;
  std::thread thread_;
};

}  // namespace

std::unique_ptr<Collectives> MakeMpiCollectives(const World& world, std::int64_t chunk_elements) {
  return std::make_unique<MpiCollectives>(world, chunk_elements);
}

}  // namespace plural::dist
