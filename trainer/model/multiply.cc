#include "trainer/model/multiply.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/mm.h>

#include <optional>
#include <string_view>

namespace plural::trainer {
namespace {

// Below it oneDNN's reordering of the weight costs more than it gains.
constexpr std::int64_t kFewRows = 16;

using LinearOperator = c10::TypedOperatorHandle<at::Tensor(
    const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&, std::string_view,
    c10::List<std::optional<at::Scalar>>, std::optional<std::string_view>)>;

// x weight^T by oneDNN. ATen has no C++ function for it, only a registered operator, absent from builds
// without oneDNN.
std::optional<LinearOperator> FindOneDnnLinear() {
  const auto found = c10::Dispatcher::singleton().findSchema({"mkldnn::_linear_pointwise", ""});
  if (!found) return std::nullopt;
  return found->typed<at::Tensor(const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&,
                                 std::string_view, c10::List<std::optional<at::Scalar>>,
                                 std::optional<std::string_view>)>();
}

}  // namespace

at::Tensor MultiplyTransposed(const at::Tensor& x_RI, const at::Tensor& weight_OI) {
  static const std::optional<LinearOperator> one_dnn = FindOneDnnLinear();
  if (!one_dnn || !x_RI.is_cpu() || x_RI.scalar_type() != at::kFloat || x_RI.size(0) < kFewRows) {
    return at::mm(x_RI, weight_OI.t());
  }
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  return one_dnn->call(x_RI, weight_OI, std::nullopt, "none", c10::List<std::optional<at::Scalar>>(), "");
}

at::Tensor Multiply(const at::Tensor& x_RO, const at::Tensor& weight_OI) {
  return MultiplyTransposed(x_RO, weight_OI.t());
}

}  // namespace plural::trainer
