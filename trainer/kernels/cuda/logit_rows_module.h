// The part of the module's interface (module.h) that is about rows of logits.
//
// Owns: the entry points' names and types. Does not own: the kernels (logit_rows.h), their use
// (ops/softmax_rows_cuda.h). Thread rule: any thread.
#pragma once

#include <cstdint>

namespace plural::trainer {

// Statistics of z / temperature. Device pointers; null where not wanted.
struct RowStatisticsArguments {
  const float* z;  // [rows, count]
  std::int64_t rows, count;
  float inverse_temperature;
  double *lse, *entropy_nats;  // [rows]
  // The column of the largest logit, and the logsumexp of the others; both or neither.
  double* lse_of_others;
  std::int64_t* column;
};
inline constexpr char kRowStatisticsName[] = "plural_row_statistics";
using RowStatisticsOnCuda = int(const RowStatisticsArguments& arguments, void* stream);

// z = c p, times 1 - (z / softcap)^2, in place. Device pointers.
struct RowGradientArguments {
  float* z;  // [rows, count]
  std::int64_t rows, count;
  const double *lse, *c;  // [rows]
  float softcap;          // 0: none
};
inline constexpr char kRowGradientName[] = "plural_row_gradient";
using RowGradientOnCuda = int(const RowGradientArguments& arguments, void* stream);

}  // namespace plural::trainer
