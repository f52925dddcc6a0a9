#include "trainer/ops/pointwise_cuda.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include <algorithm>
#include <cstdint>

#include "trainer/ops/kernel_operands.h"

namespace plural::trainer {
namespace {

constexpr std::int64_t kRowsOfPart = 64;  // of dweight

at::Tensor Dense(const at::Tensor& x, const at::Tensor& like) { return ForKernel(x.to(like.scalar_type())); }

const void* DataOrNull(const at::Tensor& x) { return x.defined() ? x.const_data_ptr() : nullptr; }

}  // namespace

std::optional<NormAndSum> NormOnCuda(const at::Tensor& x_NE, const std::optional<at::Tensor>& branch_NE,
                                     const at::Tensor& factor_E, double eps, const CudaKernels* given) {
  RmsNormOnCuda* const kernel = KernelsFor(x_NE, given).rms_norm;
  if (kernel == nullptr || !IsFp32OrBf16(x_NE.scalar_type()) || x_NE.size(1) % kValuesAtOnce != 0)
    return std::nullopt;
  const at::Tensor x = Dense(x_NE, x_NE), branch = branch_NE ? Dense(*branch_NE, x) : at::Tensor();
  const at::Tensor weight = ForKernel(factor_E);
  NormAndSum made{branch_NE ? at::empty_like(x) : x, at::empty_like(x),
                  at::empty({x.size(0), 1}, x.options().dtype(at::kFloat))};
  StartKernel(kernel, "plural::rms_norm",
              RmsNormArguments{.x = x.const_data_ptr(),
                               .branch = DataOrNull(branch),
                               .weight = weight.const_data_ptr<float>(),
                               .rows = x.size(0),
                               .count = x.size(1),
                               .eps = static_cast<float>(eps),
                               .sum = branch_NE ? made.sum_NE.mutable_data_ptr() : nullptr,
                               .norm = made.norm_NE.mutable_data_ptr(),
                               .rstd = made.rstd_N1.mutable_data_ptr<float>(),
                               .type = KernelTypeOf(x.scalar_type())},
              x.device());
  return made;
}

std::optional<NormGradients> NormBackwardOnCuda(const at::Tensor& x_NE, const at::Tensor& rstd_N1,
                                                const at::Tensor& factor_E, const at::Tensor& dnorm_NE,
                                                const at::Tensor& dsum_NE, bool needs_weight,
                                                const CudaKernels* given) {
  RmsNormBackwardOnCuda* const kernel = KernelsFor(x_NE, given).rms_norm_backward;
  if (kernel == nullptr || !IsFp32OrBf16(x_NE.scalar_type()) || x_NE.size(1) % kValuesAtOnce != 0)
    return std::nullopt;
  const at::Tensor x = Dense(x_NE, x_NE), dnorm = Dense(dnorm_NE, x);
  const at::Tensor dsum = dsum_NE.defined() ? Dense(dsum_NE, x) : at::Tensor();
  const at::Tensor weight = ForKernel(factor_E), rstd = rstd_N1.contiguous();
  const std::int64_t parts = std::max<std::int64_t>(1, (x.size(0) + kRowsOfPart - 1) / kRowsOfPart);
  at::Tensor weight_parts;
  if (needs_weight) weight_parts = at::empty({parts, x.size(1)}, x.options().dtype(at::kFloat));
  NormGradients made{at::empty_like(x), {}};
  StartKernel(kernel, "plural::rms_norm_backward",
              RmsNormBackwardArguments{
                  .x = x.const_data_ptr(),
                  .rstd = rstd.const_data_ptr<float>(),
                  .weight = weight.const_data_ptr<float>(),
                  .dnorm = dnorm.const_data_ptr(),
                  .dsum = DataOrNull(dsum),
                  .rows = x.size(0),
                  .count = x.size(1),
                  .dx = made.dx_NE.mutable_data_ptr(),
                  .dweight_parts = needs_weight ? weight_parts.mutable_data_ptr<float>() : nullptr,
                  .parts = parts,
                  .type = KernelTypeOf(x.scalar_type())},
              x.device());
  if (needs_weight) made.dweight_E = weight_parts.sum(0);
  return made;
}

at::Tensor GatedOnCuda(const at::Tensor& gate_NF, const at::Tensor& up_NF, bool silu,
                       const CudaKernels* given) {
  GateOnCuda* const kernel = KernelsFor(gate_NF, given).gate;
  if (kernel == nullptr || !IsFp32OrBf16(gate_NF.scalar_type()) || gate_NF.numel() % kValuesAtOnce != 0)
    return {};
  const at::Tensor gate = Dense(gate_NF, gate_NF), up = Dense(up_NF, gate);
  const at::Tensor out_NF = at::empty_like(gate);
  StartKernel(kernel, "plural::gate",
              GateArguments{.gate = gate.const_data_ptr(),
                            .up = up.const_data_ptr(),
                            .dout = nullptr,
                            .count = gate.numel(),
                            .silu = silu,
                            .out = out_NF.mutable_data_ptr(),
                            .dgate = nullptr,
                            .dup = nullptr,
                            .type = KernelTypeOf(gate.scalar_type())},
              gate.device());
  return out_NF;
}

std::optional<GateGradients> GatedBackwardOnCuda(const at::Tensor& gate_NF, const at::Tensor& up_NF,
                                                 const at::Tensor& dout_NF, bool silu,
                                                 const CudaKernels* given) {
  GateOnCuda* const kernel = KernelsFor(gate_NF, given).gate;
  if (kernel == nullptr || !IsFp32OrBf16(gate_NF.scalar_type()) || gate_NF.numel() % kValuesAtOnce != 0)
    return std::nullopt;
  const at::Tensor gate = Dense(gate_NF, gate_NF), up = Dense(up_NF, gate), dout = Dense(dout_NF, gate);
  const GateGradients made{at::empty_like(gate), at::empty_like(gate)};
  StartKernel(kernel, "plural::gate_backward",
              GateArguments{.gate = gate.const_data_ptr(),
                            .up = up.const_data_ptr(),
                            .dout = dout.const_data_ptr(),
                            .count = gate.numel(),
                            .silu = silu,
                            .out = nullptr,
                            .dgate = made.dgate_NF.mutable_data_ptr(),
                            .dup = made.dup_NF.mutable_data_ptr(),
                            .type = KernelTypeOf(gate.scalar_type())},
              gate.device());
  return made;
}

at::Tensor RotatedOnCuda(const at::Tensor& x, const at::Tensor& cos_ND2, const at::Tensor& sin_ND2, bool back,
                         const CudaKernels* given) {
  RotateOnCuda* const kernel = KernelsFor(x, given).rotate;
  const std::int64_t half = cos_ND2.size(1);
  if (kernel == nullptr || !IsFp32OrBf16(x.scalar_type()) || half % kValuesAtOnce != 0) return {};
  const at::Tensor from = Dense(x, x), cos = ForKernel(cos_ND2), sin = ForKernel(sin_ND2);
  const at::Tensor out = at::empty_like(from);
  StartKernel(kernel, "plural::rotate",
              RotateArguments{.x = from.const_data_ptr(),
                              .cos = cos.const_data_ptr<float>(),
                              .sin = sin.const_data_ptr<float>(),
                              .back = back,
                              .rows = x.size(0),
                              .heads = x.size(1) / (2 * half),
                              .half = half,
                              .out = out.mutable_data_ptr(),
                              .type = KernelTypeOf(x.scalar_type())},
              x.device());
  return out;
}

}  // namespace plural::trainer
