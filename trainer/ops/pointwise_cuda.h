// The decoder's row-wise functions on a GPU, one kernel each (trainer/kernels/cuda/pointwise.cu).
//
// Owns: the use of the kernels. Does not own: gradients of autograd, the formulas elsewhere (pointwise.h).
// Each returns nothing, or an undefined tensor, where no kernel serves: tensors that are on no GPU unless
// `kernels` are given, no module, fp64, rows whose length is no multiple of 8. Thread rule: any thread.
//
// Shape letters as in pointwise.h.
#pragma once

#include <ATen/core/TensorBody.h>

#include <optional>

#include "trainer/ops/cuda_kernels.h"

namespace plural::trainer {

// `kernels` null: those of the module, for tensors on a GPU. Tests pass emulated ones.

struct NormAndSum {
  at::Tensor sum_NE;  // x itself where there is no branch
  at::Tensor norm_NE, rstd_N1;
};
std::optional<NormAndSum> NormOnCuda(const at::Tensor& x_NE, const std::optional<at::Tensor>& branch_NE,
                                     const at::Tensor& factor_E, double eps,
                                     const CudaKernels* kernels = nullptr);

struct NormGradients {
  at::Tensor dx_NE;
  at::Tensor dweight_E;  // undefined where it is not wanted
};
// dsum undefined: none.
std::optional<NormGradients> NormBackwardOnCuda(const at::Tensor& x_NE, const at::Tensor& rstd_N1,
                                                const at::Tensor& factor_E, const at::Tensor& dnorm_NE,
                                                const at::Tensor& dsum_NE, bool needs_weight,
                                                const CudaKernels* kernels = nullptr);

// silu, else gelu.
at::Tensor GatedOnCuda(const at::Tensor& gate_NF, const at::Tensor& up_NF, bool silu,
                       const CudaKernels* kernels = nullptr);

struct GateGradients {
  at::Tensor dgate_NF, dup_NF;
};
std::optional<GateGradients> GatedBackwardOnCuda(const at::Tensor& gate_NF, const at::Tensor& up_NF,
                                                 const at::Tensor& dout_NF, bool silu,
                                                 const CudaKernels* kernels = nullptr);

// x is [N, heads * D].
at::Tensor RotatedOnCuda(const at::Tensor& x, const at::Tensor& cos_ND2, const at::Tensor& sin_ND2, bool back,
                         const CudaKernels* kernels = nullptr);

}  // namespace plural::trainer
