#include "dist/gradient_sync.h"

#include <ATen/core/Tensor.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>

#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace plural::dist {
namespace {

// A run of whole parameters in the flat gradient, sent as one.
struct Bucket {
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

  Impl(FlatParameters& parameters, Collectives& collectives, std::int64_t bucket_bytes)
      : parameters_(parameters), collectives_(collectives) {
    CutBuckets(bucket_bytes);
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

  void CutBuckets(std::int64_t bucket_bytes) {
    if (bucket_bytes < 1) {
      throw std::invalid_argument("bucket_bytes is " + std::to_string(bucket_bytes) + "; allowed: 1 or more");
    }
    const auto& spans = parameters_.Spans();
    const at::Tensor gradients = parameters_.Gradients();
    bucket_of_.resize(spans.size());
    std::int64_t end = gradients.numel(), count = 0;
    for (std::size_t i = spans.size(); i-- > 0;) {
      bucket_of_[i] = buckets_.size();
      ++count;
      const std::int64_t elements = end - spans[i].offset;
      if (i == 0 || elements * gradients.element_size() >= bucket_bytes) {
        buckets_.push_back({gradients.narrow(0, spans[i].offset, elements), count, count});
        end = spans[i].offset;
        count = 0;
      }
    }
    arrived_.resize(spans.size());
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

  void SendNext() { pending_.push_back(collectives_.AllReduceSum(buckets_[pending_.size()].gradients)); }

  void Arm() {
    if (armed_) throw std::logic_error("ArmLastBackward was called twice without Finish");
    armed_ = true;
  }

  void Finish() {
    while (pending_.size() < buckets_.size()) SendNext();
    for (const auto& pending : pending_) pending->Wait();
    pending_.clear();
    armed_ = false;
    arrived_.assign(arrived_.size(), false);
    for (Bucket& bucket : buckets_) bucket.missing = bucket.parameters;
  }

  FlatParameters& parameters_;
  Collectives& collectives_;
  std::vector<Bucket> buckets_;
  std::vector<std::size_t> bucket_of_;             // per parameter
  std::vector<bool> arrived_;                      // per parameter, since arming
  std::vector<std::unique_ptr<Pending>> pending_;  // of the sent buckets 0, 1, ...
  bool armed_ = false;
};

GradientSync::GradientSync(FlatParameters& parameters, Collectives& collectives, std::int64_t bucket_bytes)
    : impl_(std::make_unique<Impl>(parameters, collectives, bucket_bytes)) {}

GradientSync::~GradientSync() = default;

void GradientSync::ArmLastBackward() { impl_->Arm(); }

void GradientSync::Finish() { impl_->Finish(); }

}  // namespace plural::dist
