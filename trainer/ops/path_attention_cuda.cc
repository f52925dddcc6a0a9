#include "trainer/ops/path_attention_cuda.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <algorithm>

#include "trainer/kernels/cuda/path_attention_module.h"
#include "trainer/ops/kernel_operands.h"
#include "trainer/ops/part_scope.h"

namespace plural::trainer {
namespace {

// Heads side by side, and rows that begin where 16 bytes are read at a time.
at::Tensor WithDenseHeads(const at::Tensor& x_NHD) {
  const std::int64_t values = 16 / static_cast<std::int64_t>(x_NHD.element_size());
  const bool dense = x_NHD.stride(2) == 1 && x_NHD.stride(1) == x_NHD.size(2) &&
                     x_NHD.stride(0) % values == 0 && x_NHD.storage_offset() % values == 0;
  return dense ? x_NHD : x_NHD.clone(at::MemoryFormat::Contiguous);
}

}  // namespace

bool PathAttentionServesOnGpu(const CudaKernels* kernels, at::ScalarType dtype, std::int64_t head_dim) {
  return kernels != nullptr && kernels->path_attention != nullptr &&
         PathAttentionServes(KernelTypeOf(dtype), head_dim);
}

at::Tensor PathAttentionOnGpu(const at::Tensor& q_NHD, const at::Tensor& k_NGD, const at::Tensor& v_NGD,
                              const at::Tensor& k_SGD, const at::Tensor& v_SGD, const PathsOnDevice& paths,
                              const host::ScoreTerms& terms, std::int64_t window,
                              const CudaKernels& kernels) {
  const PartScope attention(Part::kAttention);
  const at::Tensor q = WithDenseHeads(q_NHD), k = WithDenseHeads(k_NGD), v = WithDenseHeads(v_NGD);
  const std::int64_t rows = q.size(0), heads = q.size(1), dim = q.size(2);
  const std::int64_t seen = window > 0 ? std::min(window, paths.longest) : paths.longest;
  const std::int64_t parts = PathPartsOf(seen);
  const at::Tensor out = at::empty({rows, heads * dim}, q.options());
  at::Tensor scratch;
  if (parts > 1) {
    scratch = at::empty({PathScratchOf(rows, heads, parts, dim)}, q.options().dtype(at::kFloat));
  }
  StartKernel(kernels.path_attention, "plural::path_attention",
              PathAttentionArguments{
                  .q = q.const_data_ptr(),
                  .new_k = k.const_data_ptr(),
                  .new_v = v.const_data_ptr(),
                  .q_row = q.stride(0),
                  .k_row = k.stride(0),
                  .v_row = v.stride(0),
                  .k = k_SGD.mutable_data_ptr(),
                  .v = v_SGD.mutable_data_ptr(),
                  .rows = static_cast<std::int32_t>(rows),
                  .heads = static_cast<std::int32_t>(heads),
                  .shared_heads = static_cast<std::int32_t>(k.size(1)),
                  .dim = static_cast<std::int32_t>(dim),
                  .first = paths.first,
                  .slot = paths.slot,
                  .window = static_cast<std::int32_t>(window),
                  .parts = static_cast<std::int32_t>(parts),
                  .scale = static_cast<float>(terms.scale),
                  .softcap = static_cast<float>(terms.softcap),
                  .out = out.mutable_data_ptr(),
                  .scratch = scratch.defined() ? static_cast<float*>(scratch.mutable_data_ptr()) : nullptr,
                  .type = KernelTypeOf(q.scalar_type())},
              q.device());
  return out;
}

}  // namespace plural::trainer
