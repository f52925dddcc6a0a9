#include "dist/flat_parameters.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>

#include <stdexcept>
#include <unordered_map>
#include <utility>

namespace plural::dist {
namespace {

void CheckTensors(const std::vector<NamedTensor>& tensors) {
  if (tensors.empty()) throw std::invalid_argument("no trainable tensors: nothing to flatten");
  std::unordered_map<const void*, const std::string*> owners;
  const at::Tensor& first = tensors.front().tensor;
  for (const auto& [name, tensor] : tensors) {
    const auto refuse = [&name = name](const std::string& what) {
      throw std::invalid_argument("tensor '" + name + "' " + what);
    };
    if (!tensor.defined()) refuse("is undefined");
    if (!tensor.requires_grad() || !tensor.is_leaf()) refuse("is not a leaf that requires a gradient");
    if (tensor.scalar_type() != at::kFloat && tensor.scalar_type() != at::kDouble) {
      refuse(std::string("is ") + at::toString(tensor.scalar_type()) +
             "; trainable tensors are fp32 or fp64");
    }
    if (tensor.scalar_type() != first.scalar_type() || tensor.device() != first.device()) {
      refuse("differs in dtype or device from '" + tensors.front().name + "'");
    }
    if (tensor.numel() == 0) continue;
    const auto [owner, is_new] = owners.emplace(tensor.data_ptr(), &name);
    if (!is_new) refuse("shares its memory with '" + *owner->second + "'; give tied tensors once");
  }
}

}  // namespace

FlatParameters::FlatParameters(std::vector<NamedTensor> tensors) : tensors_(std::move(tensors)) {
  CheckTensors(tensors_);
  std::int64_t total = 0;
  for (const auto& [name, tensor] : tensors_) {
    spans_.push_back({name, tensor.sizes().vec(), total, tensor.numel()});
    total += (tensor.numel() + kAlignment - 1) / kAlignment * kAlignment;
  }

  const c10::NoGradGuard no_grad;
  const at::TensorOptions options = tensors_.front().tensor.options().requires_grad(false);
  values_ = at::zeros({total}, options);
  gradients_ = at::zeros({total}, options);
  for (std::size_t i = 0; i < spans_.size(); ++i) {
    const Span& span = spans_[i];
    at::Tensor& tensor = tensors_[i].tensor;
    const at::Tensor values = values_.narrow(0, span.offset, span.size).view(span.shape);
    values.copy_(tensor);
    tensor.set_data(values);
    // With a gradient defined, autograd adds to it in place instead of putting its own tensor there.
    tensor.mutable_grad() = gradients_.narrow(0, span.offset, span.size).view(span.shape);
  }
}

void FlatParameters::ZeroGradients() { gradients_.zero_(); }

void FlatParameters::CheckAliasing() const {
  for (std::size_t i = 0; i < spans_.size(); ++i) {
    const Span& span = spans_[i];
    const auto check = [&span](const at::Tensor& view, const at::Tensor& buffer, const char* what) {
      const bool aliased =
          view.defined() && view.scalar_type() == buffer.scalar_type() && view.is_contiguous() &&
          view.sizes() == at::IntArrayRef(span.shape) && view.device() == buffer.device() &&
          view.storage().data() == buffer.storage().data() && view.storage_offset() == span.offset;
      if (!aliased) {
        throw std::logic_error("the " + std::string(what) + " of '" + span.name +
                               "' left the flat buffer; cast and move parameters before flattening, and "
                               "zero gradients with ZeroGradients()");
      }
    };
    check(tensors_[i].tensor, values_, "values");
    check(tensors_[i].tensor.grad(), gradients_, "gradient");
  }
}

}  // namespace plural::dist
