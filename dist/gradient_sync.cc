#include "dist/gradient_sync.h"

#include <ATen/core/Tensor.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>

#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "dist/buckets.h"

namespace plural::dist {
namespace {

struct SentBucket {
  at::Tensor gradients;  // view of the flat buffer
  std::int64_t parameters = 0;
  std::int64_t missing = 0;  // parameters whose gradient has not arrived
};

}  // namespace

// No lock: hooks run inside backward(), on its thread (CPU) or the engine's device thread (CUDA) while
// the main thread waits in backward(), and the engine's queues order the two.
struct GradientSync::Impl {
  // Autograd calls it after a gradient has been added to the flat buffer.
  class Hook : public torch::autograd::PostAccumulateGradHook {
   public:
    Hook(Impl& owner, std::size_t parameter) : owner_(owner), parameter_(parameter) {}
    void operator()(const at::Tensor&) override { owner_.GradientArrived(parameter_); }

   private:
    Impl& owner_;
    const std::size_t parameter_;
  };

  Impl(FlatParameters& parameters, Collectives& collectives, const std::vector<Bucket>& buckets,
       bool to_shards)
      : parameters_(parameters), collectives_(collectives), to_shards_(to_shards) {
    Take(buckets);
    for (const auto& [name, tensor] : parameters_.Tensors()) {
      if (torch::autograd::impl::post_acc_grad_hooks(tensor) != nullptr) {
        throw std::logic_error("parameter '" + name +
                               "' already has a gradient hook; one GradientSync owns a parameter");
      }
    }
    for (std::size_t i = 0; i < parameters_.Tensors().size(); ++i) {
      torch::autograd::impl::set_post_acc_grad_hooks(parameters_.Tensors()[i].tensor,
                                                     std::make_unique<Hook>(*this, i));
    }
  }

  ~Impl() {
    for (const NamedTensor& named : parameters_.Tensors()) {
      torch::autograd::impl::set_post_acc_grad_hooks(named.tensor, nullptr);
    }
  }

  void Take(const std::vector<Bucket>& buckets) {
    const at::Tensor gradients = parameters_.Gradients();
    for (const Bucket& bucket : buckets) {
      buckets_.push_back(
          {gradients.narrow(0, bucket.offset, bucket.size), bucket.parameters, bucket.parameters});
    }
    const std::size_t count = parameters_.Spans().size();
    std::size_t parameter = count;
    bucket_of_.resize(count);
    for (std::size_t i = 0; i < buckets.size(); ++i) {
      for (std::int64_t k = 0; k < buckets[i].parameters; ++k) bucket_of_[--parameter] = i;
    }
    arrived_.resize(count);
  }

  void GradientArrived(std::size_t parameter) {
    if (!armed_) return;
    const std::size_t index = bucket_of_[parameter];
    if (index < pending_.size()) {
      // The sum in progress lacks this gradient; continuing would train on a wrong sum.
      throw std::logic_error("parameter '" + parameters_.Spans()[parameter].name +
                             "' got a second gradient in one backward, after its bucket was sent; a "
                             "parameter may be used in one recomputed region only");
    }
    if (arrived_[parameter]) return;
    arrived_[parameter] = true;
    --buckets_[index].missing;
    while (pending_.size() < buckets_.size() && buckets_[pending_.size()].missing == 0) SendNext();
  }

  void SendNext() {
    const at::Tensor& gradients = buckets_[pending_.size()].gradients;
    pending_.push_back(to_shards_ ? collectives_.ReduceScatterSum(gradients)
                                  : collectives_.AllReduceSum(gradients));
  }

  void Arm() {
    if (armed_) throw std::logic_error("ArmLastBackward was called twice without Finish");
    armed_ = true;
  }

  bool Disarm() {
    if (!pending_.empty()) return false;
    Reset();
    return true;
  }

  void Reset() {
    armed_ = false;
    arrived_.assign(arrived_.size(), false);
    for (SentBucket& bucket : buckets_) bucket.missing = bucket.parameters;
  }

  void Finish() {
    while (pending_.size() < buckets_.size()) SendNext();
    for (const auto& pending : pending_) pending->Wait();
    pending_.clear();
    Reset();
  }

  FlatParameters& parameters_;
  Collectives& collectives_;
  const bool to_shards_;  // a rank needs the sum of its own slices only
  std::vector<SentBucket> buckets_;
  std::vector<std::size_t> bucket_of_;             // per parameter
  std::vector<bool> arrived_;                      // per parameter, since arming
  std::vector<std::unique_ptr<Pending>> pending_;  // of the sent buckets 0, 1, ...
  bool armed_ = false;
};

GradientSync::GradientSync(FlatParameters& parameters, Collectives& collectives, std::int64_t bucket_bytes)
    : impl_(std::make_unique<Impl>(parameters, collectives, CutBuckets(parameters, bucket_bytes), false)) {}

GradientSync::GradientSync(FlatParameters& parameters, Collectives& collectives, const Shards& shards)
    : impl_(std::make_unique<Impl>(parameters, collectives, shards.Buckets(), true)) {}

GradientSync::~GradientSync() = default;

void GradientSync::ArmLastBackward() { impl_->Arm(); }

bool GradientSync::Disarm() { return impl_->Disarm(); }

void GradientSync::Finish() { impl_->Finish(); }

}  // namespace plural::dist
