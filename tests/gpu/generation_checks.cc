#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>

#include <cmath>
#include <cstdint>
#include <memory>

#include "data/random.h"
#include "tests/gpu/kernel_checks.h"
#include "tests/gpu/random_operand.h"
#include "trainer/generate/row_sampler.h"
#include "trainer/kernels/path_attention.h"
#include "trainer/ops/packed_upload.h"
#include "trainer/ops/path_attention_cuda.h"

namespace plural::trainer {
namespace {

// Responses to one prompt, whose tokens they share; of each the newest token is to be stored.
KernelCheck PathAttentionCheck(at::ScalarType dtype, at::Device device, bool tiny,
                               const CudaKernels& kernels) {
  const std::int64_t rows = tiny ? 3 : 64, prompt = 200, tokens = tiny ? 300 : 600, dim = 128;
  const std::int64_t heads = tiny ? 4 : 32, shared_heads = tiny ? 1 : 8;
  std::vector<std::int32_t> first = {0}, slot;
  std::vector<std::int64_t> newest;
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t t = 0; t < tokens; ++t)
      slot.push_back(static_cast<std::int32_t>(t < prompt ? t : prompt + r * (tokens - prompt) + t - prompt));
    newest.push_back(slot.back());
    first.push_back(static_cast<std::int32_t>(slot.size()));
  }
  const std::int64_t slots = prompt + rows * (tokens - prompt);
  const at::Tensor q = RandomOperand({rows, heads, dim}, 1, dtype).mul_(3.0);
  const at::Tensor k = RandomOperand({rows, shared_heads, dim}, 2, dtype).mul_(3.0);
  const at::Tensor v = RandomOperand({rows, shared_heads, dim}, 3, dtype);
  const at::Tensor k_pool = RandomOperand({slots, shared_heads, dim}, 4, dtype).mul_(3.0);
  const at::Tensor v_pool = RandomOperand({slots, shared_heads, dim}, 5, dtype);
  const host::ScoreTerms terms{.scale = 1.0 / std::sqrt(static_cast<double>(dim))};

  const at::Tensor newest_R = at::tensor(newest), out = at::empty({rows, heads * dim}, at::kDouble);
  const at::Tensor q_wide = q.to(at::kDouble);
  const at::Tensor k_wide = k_pool.to(at::kDouble).index_copy_(0, newest_R, k.to(at::kDouble));
  const at::Tensor v_wide = v_pool.to(at::kDouble).index_copy_(0, newest_R, v.to(at::kDouble));
  std::vector<double> scores(static_cast<std::size_t>(heads * tokens));
  for (std::int64_t r = 0; r < rows; ++r) {
    host::PathAttention({.query = q_wide.const_data_ptr<double>() + r * heads * dim,
                         .keys = k_wide.const_data_ptr<double>(),
                         .values = v_wide.const_data_ptr<double>(),
                         .path = slot.data() + r * tokens,
                         .tokens = tokens,
                         .heads = heads,
                         .shared_heads = shared_heads,
                         .dim = dim,
                         .terms = terms},
                        scores.data(), out.mutable_data_ptr<double>() + r * heads * dim);
  }

  const auto upload = std::make_shared<PackedUpload>();
  const auto first_place = upload->Add(first), slot_place = upload->Add(slot);
  upload->Send(device);
  const auto there = [&](const at::Tensor& x) { return x.to(device); };
  return {.name = "attention over a cache, " + std::to_string(rows) + " paths of " + std::to_string(tokens),
          .dtype = dtype,
          .run =
              [=, q = there(q), k = there(k), v = there(v), k_pool = there(k_pool), v_pool = there(v_pool),
               &kernels] {
                const PathsOnDevice paths = {upload->At<std::int32_t>(first_place),
                                             upload->At<std::int32_t>(slot_place), tokens};
                return std::vector<at::Tensor>{
                    PathAttentionOnGpu(q, k, v, k_pool, v_pool, paths, terms, 0, kernels)};
              },
          .wanted = {out},
          .allowed_relative_error = dtype == at::kFloat ? 1e-4 : 1.0 / 128,
          .bytes = static_cast<double>(2 * rows * tokens * shared_heads * dim) *
                   static_cast<double>(elementSize(dtype))};
}

// The very tokens of the host's sampler.
KernelCheck SamplingCheck(at::Device device, bool tiny, const CudaKernels& kernels) {
  const std::int64_t count = tiny ? 700 : 32000;
  const std::vector<SamplingSettings> asked = {
      {}, {.temperature = 0.0}, {.temperature = 0.8, .top_k = 50}, {.top_p = 0.9}};
  const auto rows = std::make_shared<std::vector<RowToDraw>>();
  data::CounterRandom random{5};
  for (std::int64_t r = 0; r < (tiny ? 8 : 64); ++r) {
    RowToDraw& row = rows->emplace_back();
    row.sampling = asked[static_cast<std::size_t>(r) % asked.size()];
    for (int draw = 0; draw < 4; ++draw) row.uniforms.push_back(random.Uniform());
  }
  const at::Tensor logits =
      RandomOperand({static_cast<std::int64_t>(rows->size()), count}, 1, at::kFloat).mul_(25.0);
  const auto tokens = [rows](const at::Tensor& z, const CudaKernels* by) {
    RowSampler sampler({}, by);
    PackedUpload upload;
    sampler.Prepare(*rows, upload);
    upload.Send(z.device());
    std::vector<double> drawn;
    for (const DrawnRow& row : sampler.Draw(*rows, z, upload))
      drawn.insert(drawn.end(), row.tokens.begin(), row.tokens.end());
    return std::vector<at::Tensor>{at::tensor(drawn, at::kDouble)};
  };
  return {.name = "tokens drawn, with their way to the host",
          .dtype = at::kFloat,
          .run = [=, z = logits.to(device), &kernels] { return tokens(z, &kernels); },
          .wanted = tokens(logits, nullptr),
          .allowed_relative_error = 0.0,
          .bytes = 2.0 * static_cast<double>(logits.nbytes())};
}

}  // namespace

std::vector<KernelCheck> GenerationChecks(at::Device device, bool tiny, const CudaKernels& kernels) {
  std::vector<KernelCheck> checks;
  if (kernels.path_attention != nullptr) {
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16})
      checks.push_back(PathAttentionCheck(dtype, device, tiny, kernels));
  }
  if (kernels.sample_rows != nullptr) checks.push_back(SamplingCheck(device, tiny, kernels));
  return checks;
}

}  // namespace plural::trainer
