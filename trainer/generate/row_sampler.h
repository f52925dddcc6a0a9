// Draws from the rows of a decode step, where their logits are.
//
// Owns: what goes to the device for them and comes back: on a GPU tokens and log-probabilities alone, by a
// kernel that chooses as the host does (ops/sample_rows_cuda.h); where none serves, the logits. Does not own:
// the filters and their order (sampler.h), which draw belongs to which response (generator.h). Thread rule:
// one thread.
#pragma once

#include <ATen/core/TensorBody.h>

#include <cstdint>
#include <vector>

#include "data/group.h"
#include "trainer/generate/sampler.h"
#include "trainer/ops/cuda_kernels.h"
#include "trainer/ops/packed_upload.h"

namespace plural::trainer {

struct RowToDraw {
  SamplingSettings sampling{};
  bool may_end = true;           // end tokens are drawn, too
  std::vector<double> uniforms;  // in [0, 1): one per draw
};

struct DrawnRow {
  double log_sum = 0.0;  // log sum exp of the row's logits; not finite where the model's numbers are not
  std::vector<data::Token> tokens;
  std::vector<double> logprobs;  // nats, of the model's own distribution
};

class RowSampler {
 public:
  // `kernels` null: none. They must outlive it.
  RowSampler(std::vector<data::Token> ends, const CudaKernels* kernels);

  // Adds to `upload` what the device needs to know of `rows`; it must be sent before Draw.
  void Prepare(const std::vector<RowToDraw>& rows, PackedUpload& upload);
  // The draws of the rows that were prepared last, from their logits [R, V]. The host waits once for the
  // device, and once more where it draws some rows itself.
  std::vector<DrawnRow> Draw(const std::vector<RowToDraw>& rows, const at::Tensor& logits_RV,
                             const PackedUpload& upload);

 private:
  DrawnRow OnHost(const RowToDraw& row, const at::Tensor& logits_V);
  std::vector<DrawnRow> OnDevice(const std::vector<RowToDraw>& rows, const at::Tensor& logits_RV,
                                 const PackedUpload& upload);

  const std::vector<data::Token> ends_;
  const CudaKernels* const kernels_;
  struct Places {
    PackedUpload::Place row, uniform, ends;
  };
  Places places_;
  std::int64_t draws_ = 0;
  TokenSampler<float> float_sampler_;
  TokenSampler<double> double_sampler_;
};

}  // namespace plural::trainer
