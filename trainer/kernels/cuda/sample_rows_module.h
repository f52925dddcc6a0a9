// The part of the module's interface (module.h) that is about drawing tokens from rows of logits.
//
// Owns: the entry point's name and types, what its kernel serves. Does not own: the kernel (sample_rows.h),
// its use (ops/sample_rows_cuda.h). Thread rule: any thread.
#pragma once

#include <cstdint>

namespace plural::trainer {

// What is asked of one row, as SamplingSettings has it (generate/sampler.h).
struct RowOfDraws {
  double temperature, top_p;
  std::int64_t top_k;
  std::int32_t first, draws;  // in `uniform` and `drawn`
  std::int64_t excludes;      // 1: the tokens of `excluded` are not drawn
};

struct DrawnOnDevice {
  std::int32_t token;  // -1: this kernel does not serve the row
  float logit;
  double log_sum;  // log sum exp of the row's logits, also where it is not served
};

// Device pointers.
struct SampleRowsArguments {
  const float* z;  // [rows, count]
  std::int64_t rows, count;
  const RowOfDraws* row;  // [rows]
  const double* uniform;  // in [0, 1)
  const std::int32_t* excluded;
  std::int64_t excluded_count;
  DrawnOnDevice* drawn;
};
inline constexpr char kSampleRowsName[] = "plural_sample_rows";
using SampleRowsOnCuda = int(const SampleRowsArguments& arguments, void* stream);

// Tokens of the largest vocabulary. Of a row, top-k and top-p are served as far as the tokens to choose from
// and what ties with the last of them are found among kSampledCandidates; else its token is -1.
inline constexpr std::int64_t kSampledVocabulary = 327680, kSampledCandidates = 2048;

}  // namespace plural::trainer
