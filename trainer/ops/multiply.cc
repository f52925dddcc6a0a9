#include "trainer/ops/multiply.h"

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>

#include <algorithm>
#include <optional>
#include <string_view>
#include <vector>

#include "trainer/kernels/dtypes.h"
#include "trainer/kernels/outer_products.h"
#include "trainer/kernels/row_products.h"
#include "trainer/kernels/tile_products.h"
#include "trainer/ops/tile_multiply.h"

namespace plural::trainer {
namespace {

// With fewer rows, oneDNN's reordering of the weight costs more than it gains.
constexpr std::int64_t kFewRows = 16;
// The least outputs that are worth a thread.
constexpr std::int64_t kOutputsPerThread = 64;
// Bytes of weights that are dequantised at a time: well within a second-level cache.
constexpr std::int64_t kNf4Bytes = 256 << 10;
constexpr std::int64_t kTileOutputs = 4;  // row products compute this many outputs at once

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

bool ByTiles(const at::Tensor& x) {
  return x.is_cpu() && (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16);
}

std::vector<Factors> WithLowRank(const at::Tensor& x_RI, const at::Tensor& weight_OI, const at::Tensor& t_RK,
                                 const at::Tensor& b_OK) {
  std::vector<Factors> pairs = {{x_RI, weight_OI.t()}};
  if (t_RK.defined()) pairs.push_back({t_RK, b_OK.t()});
  return pairs;
}

// a b where bf16 gives fp32. A GPU has a product of bf16 with fp32 sums and results; other devices, of which
// only "meta" comes here, round to bf16 in between.
at::Tensor WideProduct(const at::Tensor& a_MK, const at::Tensor& b_KN) {
  const at::ScalarType wide = ComputedIn(a_MK.scalar_type());
  if (a_MK.is_cuda() && wide != a_MK.scalar_type()) return at::mm(a_MK, b_KN, wide);
  return at::mm(a_MK, b_KN).to(wide);
}

}  // namespace

at::Tensor MultiplyTransposed(const at::Tensor& x_RI, const at::Tensor& weight_OI, const at::Tensor& t_RK,
                              const at::Tensor& b_OK) {
  if (ByTiles(x_RI) && x_RI.scalar_type() == at::kFloat) {
    const at::Tensor y_RO = at::empty({x_RI.size(0), weight_OI.size(0)}, x_RI.options());
    TileMultiply(WithLowRank(x_RI, weight_OI, t_RK, b_OK), y_RO);
    return y_RO;
  }
  at::Tensor y_RO = at::mm(x_RI, weight_OI.t());
  if (t_RK.defined()) y_RO.addmm_(t_RK, b_OK.t());
  return y_RO;
}

at::Tensor MultiplyUnrounded(const at::Tensor& x_RI, const at::Tensor& weight_OI, const at::Tensor& t_RK,
                             const at::Tensor& b_OK) {
  if (x_RI.scalar_type() != at::kBFloat16) return MultiplyTransposed(x_RI, weight_OI, t_RK, b_OK);
  if (!x_RI.is_cpu()) {
    at::Tensor y_RO = WideProduct(x_RI, weight_OI.t());
    if (t_RK.defined()) y_RO.addmm_(t_RK.to(at::kFloat), b_OK.to(at::kFloat).t());
    return y_RO;
  }
  // Without tile registers, packing the weight costs more than it gains.
  if (!t_RK.defined() && !host::HasTileRegisters()) return MultiplyRows(x_RI, weight_OI);
  const at::Tensor y_RO = at::empty({x_RI.size(0), weight_OI.size(0)}, x_RI.options().dtype(at::kFloat));
  TileMultiply(WithLowRank(x_RI, weight_OI, t_RK, b_OK), y_RO);
  return y_RO;
}

at::Tensor Multiply(const at::Tensor& x_RO, const at::Tensor& weight_OI) {
  static const std::optional<LinearOperator> one_dnn = FindOneDnnLinear();
  if (!one_dnn || !x_RO.is_cpu() || x_RO.scalar_type() != at::kFloat || x_RO.size(0) < kFewRows) {
    return at::mm(x_RO, weight_OI);
  }
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  return one_dnn->call(x_RO, weight_OI.t(), std::nullopt, "none", c10::List<std::optional<at::Scalar>>(), "");
}

at::Tensor MultiplyNarrow(const at::Tensor& x_RI, const at::Tensor& b_IK) {
  if (!ByTiles(x_RI)) return WideProduct(x_RI, b_IK);
  const at::Tensor y_RK = at::empty({x_RI.size(0), b_IK.size(1)}, x_RI.options().dtype(at::kFloat));
  TileMultiply({{x_RI, b_IK}}, y_RK);
  return y_RK;
}

void AddProducts(at::Tensor& sum_MN, const std::vector<Factors>& pairs, bool more_follow) {
  if (pairs.empty()) return;
  const at::Tensor &a_MK = pairs[0].a_MK, &b_KN = pairs[0].b_KN;
  const bool add = sum_MN.defined(), several = add || more_follow || pairs.size() > 1;
  if (several && ByTiles(a_MK) && a_MK.scalar_type() == at::kFloat) {
    if (!add) sum_MN = at::empty({a_MK.size(0), b_KN.size(1)}, a_MK.options());
    TileMultiply(pairs, sum_MN, add);
    return;
  }
  if (!add) sum_MN = Multiply(a_MK, b_KN);
  for (std::size_t i = add ? 0 : 1; i < pairs.size(); ++i) sum_MN.addmm_(pairs[i].a_MK, pairs[i].b_KN);
}

at::Tensor SumOuterProducts(const at::Tensor& a_RJ, const at::Tensor& b_RI) {
  if (!ByTiles(a_RJ)) return WideProduct(a_RJ.t(), b_RI);
  if (a_RJ.scalar_type() == at::kFloat) {
    const at::Tensor y_JI = at::empty({a_RJ.size(1), b_RI.size(1)}, a_RJ.options());
    TileMultiply({{a_RJ.t(), b_RI}}, y_JI);
    return y_JI;
  }
  const at::Tensor a = a_RJ.contiguous(), b = b_RI.contiguous();
  const at::Tensor y = at::empty({a.size(1), b.size(1)}, a.options().dtype(at::kFloat));
  const std::int64_t columns = b.size(1);
  at::parallel_for(0, columns, kOutputsPerThread, [&](std::int64_t begin, std::int64_t end) {
    host::OuterProducts(a.const_data_ptr<at::BFloat16>(), b.const_data_ptr<at::BFloat16>() + begin,
                        {.rows = a.size(0), .width_a = a.size(1), .width_b = end - begin, .stride = columns},
                        y.mutable_data_ptr<float>() + begin);
  });
  return y;
}

at::Tensor MultiplyRows(const at::Tensor& x_RI, const at::Tensor& weight_OI, const at::Tensor& y_RO) {
  const at::ScalarType dtype = x_RI.scalar_type();
  if (!x_RI.is_cpu()) {
    const at::Tensor product_RO = WideProduct(x_RI, weight_OI.t());
    return y_RO.defined() ? at::Tensor(y_RO).add_(product_RO) : product_RO;
  }
  const at::Tensor x = x_RI.contiguous(), weight = weight_OI.contiguous();
  const std::int64_t inputs = x.size(1), outputs = weight.size(0);
  const at::Tensor y =
      y_RO.defined() ? y_RO : at::empty({x.size(0), outputs}, x.options().dtype(ComputedIn(dtype)));
  AT_DISPATCH_FLOATING_TYPES_AND(at::kBFloat16, dtype, "row products", [&] {
    at::parallel_for(0, outputs, kOutputsPerThread, [&](std::int64_t begin, std::int64_t end) {
      host::RowProducts(x.const_data_ptr<scalar_t>(), weight.const_data_ptr<scalar_t>() + begin * inputs,
                        {.rows = x.size(0),
                         .inputs = inputs,
                         .outputs = end - begin,
                         .y_stride = outputs,
                         .add = y_RO.defined()},
                        y.mutable_data_ptr<host::Computed<scalar_t>>() + begin);
    });
  });
  return y;
}

at::Tensor MultiplyRows(const at::Tensor& x_RI, const Nf4Weight& weight) {
  const at::ScalarType dtype = x_RI.scalar_type();
  if (!x_RI.is_cpu()) return MultiplyRows(x_RI, weight.DequantizedInScratch(dtype).Tensor());
  const at::Tensor x = x_RI.contiguous();
  const std::int64_t rows = x.size(0), inputs = weight.inputs, outputs = weight.outputs;
  const at::Tensor y = at::empty({rows, outputs}, x.options().dtype(ComputedIn(dtype)));
  AT_DISPATCH_FLOATING_TYPES_AND(at::kBFloat16, dtype, "row products", [&] {
    at::parallel_for(0, outputs, kOutputsPerThread, [&](std::int64_t begin, std::int64_t end) {
      const std::int64_t fitting = kNf4Bytes / (inputs * static_cast<std::int64_t>(sizeof(scalar_t)));
      const std::int64_t block = std::max(kTileOutputs, fitting / kTileOutputs * kTileOutputs);
      std::vector<scalar_t> values(static_cast<std::size_t>(std::min(block, end - begin) * inputs));
      for (std::int64_t first = begin; first < end; first += block) {
        const std::int64_t count = std::min(block, end - first);
        weight.DequantizeRows(first, first + count, values.data());
        host::RowProducts(x.const_data_ptr<scalar_t>(), values.data(),
                          {.rows = rows, .inputs = inputs, .outputs = count, .y_stride = outputs},
                          y.mutable_data_ptr<host::Computed<scalar_t>>() + first);
      }
    });
  });
  return y;
}

}  // namespace plural::trainer
