#include "trainer/generate/row_sampler.h"

#include <ATen/core/Tensor.h>

#include <span>
#include <utility>

#include "trainer/ops/row_numbers.h"
#include "trainer/ops/sample_rows_cuda.h"

namespace plural::trainer {
namespace {

template <typename Real>
DrawnRow DrawFrom(TokenSampler<Real>& sampler, const RowToDraw& row, const at::Tensor& logits_V,
                  const std::vector<data::Token>& ends) {
  sampler.Read({logits_V.const_data_ptr<Real>(), static_cast<std::size_t>(logits_V.size(0))}, row.sampling,
               row.may_end ? std::span<const data::Token>() : ends);
  DrawnRow drawn{.log_sum = sampler.LogSum(), .tokens = {}, .logprobs = {}};
  for (const double uniform : row.uniforms) {
    drawn.tokens.push_back(sampler.Draw(uniform));
    drawn.logprobs.push_back(sampler.LogProbability(drawn.tokens.back()));
  }
  return drawn;
}

at::Tensor LogitsOnHost(const at::Tensor& logits_RV) {
  const bool exact = logits_RV.scalar_type() == at::kDouble;
  return logits_RV.to(at::kCPU, exact ? at::kDouble : at::kFloat).contiguous();
}

}  // namespace

RowSampler::RowSampler(std::vector<data::Token> ends, const CudaKernels* kernels)
    : ends_(std::move(ends)), kernels_(kernels) {}

void RowSampler::Prepare(const std::vector<RowToDraw>& rows, PackedUpload& upload) {
  draws_ = 0;
  if (kernels_ == nullptr || kernels_->sample_rows == nullptr) return;
  std::vector<RowOfDraws> asked;
  std::vector<double> uniforms;
  for (const RowToDraw& row : rows) {
    asked.push_back({.temperature = row.sampling.temperature,
                     .top_p = row.sampling.top_p,
                     .top_k = row.sampling.top_k,
                     .first = static_cast<std::int32_t>(uniforms.size()),
                     .draws = static_cast<std::int32_t>(row.uniforms.size()),
                     .excludes = row.may_end ? 0 : 1});
    uniforms.insert(uniforms.end(), row.uniforms.begin(), row.uniforms.end());
  }
  draws_ = static_cast<std::int64_t>(uniforms.size());
  places_ = {upload.Add(asked), upload.Add(uniforms), upload.Add(ends_)};
}

std::vector<DrawnRow> RowSampler::Draw(const std::vector<RowToDraw>& rows, const at::Tensor& logits_RV,
                                       const PackedUpload& upload) {
  if (SampleRowsServes(kernels_, logits_RV)) return OnDevice(rows, logits_RV, upload);
  const at::Tensor host_RV = LogitsOnHost(logits_RV);
  std::vector<DrawnRow> drawn;
  for (std::size_t r = 0; r < rows.size(); ++r)
    drawn.push_back(OnHost(rows[r], host_RV[static_cast<std::int64_t>(r)]));
  return drawn;
}

DrawnRow RowSampler::OnHost(const RowToDraw& row, const at::Tensor& logits_V) {
  return logits_V.scalar_type() == at::kDouble ? DrawFrom(double_sampler_, row, logits_V, ends_)
                                               : DrawFrom(float_sampler_, row, logits_V, ends_);
}

std::vector<DrawnRow> RowSampler::OnDevice(const std::vector<RowToDraw>& rows, const at::Tensor& logits_RV,
                                           const PackedUpload& upload) {
  const std::vector<DrawnOnDevice> found =
      SampleRowsOnGpu(logits_RV,
                      {.row = upload.At<RowOfDraws>(places_.row),
                       .uniform = upload.At<double>(places_.uniform),
                       .excluded = upload.At<std::int32_t>(places_.ends),
                       .excluded_count = static_cast<std::int64_t>(ends_.size()),
                       .draws = draws_},
                      *kernels_);
  std::vector<DrawnRow> drawn(rows.size());
  std::vector<std::int64_t> left;  // rows that the kernel does not serve
  std::size_t next = 0;
  for (std::size_t r = 0; r < rows.size(); ++r) {
    for (std::size_t draw = 0; draw < rows[r].uniforms.size(); ++draw) {
      const DrawnOnDevice& one = found[next++];
      drawn[r].log_sum = one.log_sum;
      drawn[r].tokens.push_back(one.token);
      drawn[r].logprobs.push_back(static_cast<double>(one.logit) - one.log_sum);
    }
    if (!drawn[r].tokens.empty() && drawn[r].tokens.front() < 0) left.push_back(static_cast<std::int64_t>(r));
  }
  if (left.empty()) return drawn;
  const RowNumbers numbers(left, logits_RV.device());
  const at::Tensor host_RV = LogitsOnHost(logits_RV.index_select(0, numbers.on_device));
  for (std::size_t i = 0; i < left.size(); ++i) {
    const auto r = static_cast<std::size_t>(left[i]);
    drawn[r] = OnHost(rows[r], host_RV[static_cast<std::int64_t>(i)]);
  }
  return drawn;
}

}  // namespace plural::trainer
